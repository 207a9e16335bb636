"""Generated blocks of a committed page, between `<!-- NAME -->` and `<!-- end -->`. Knows nothing of what they say."""

import re
from collections.abc import Mapping

from probes.inputs import InputError


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """A page with its generated blocks made anew.

    Args:
        text: The page.
        blocks: What stands between `<!-- NAME -->` and `<!-- end -->`, by NAME.

    Raises:
        InputError: If the page lacks a block, or has it twice.

    >>> with_blocks("<!-- age -->\\nold\\n<!-- end -->", {"age": "new"})
    '<!-- age -->\\nnew\\n<!-- end -->'
    """
    for name, made in blocks.items():
        block = f"<!-- {name} -->\n{made}\n<!-- end -->"
        parts = re.split(rf"<!-- {re.escape(name)} -->\n.*?<!-- end -->", text, flags=re.S)
        text, count = block.join(parts), len(parts) - 1
        if count != 1:
            raise InputError(f"the page has {count} blocks '<!-- {name} -->' … '<!-- end -->': give it one")
    return text
