"""The command's first step: refuse to start when another package is imported under one of our names, then hand over.

It lies outside the packages, under a name that nobody else takes, so that it runs even where `studies` is not ours.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = ("probes", "rewardmodels", "viz", "studies")
"""The top-level packages of this distribution."""

EXIT_BAD_INPUT = 2


class ShadowedPackageError(ImportError):
    """Another package stands under one of our names, or ours is missing; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `sightcheck`; returns the exit status.

    Args:
        arguments: What follows `sightcheck` on the command line; None reads `sys.argv`.
    """
    try:
        check_packages()
    except ShadowedPackageError as error:
        print(f"sightcheck: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    from studies.cli import command

    return command(arguments)


def check_packages(finder: Callable[[str], Any] = find_spec, home: Path | None = None) -> None:
    """Refuse to start when another package is imported under one of our names.

    Args:
        finder: How a name is resolved, `importlib.util.find_spec`.
        home: The folder that must hold the packages; the one this file is in.

    Raises:
        ShadowedPackageError: Names the package, the intruder's place and the way forward.
    """
    home = Path(__file__).resolve().parent if home is None else home
    for name in PACKAGES:
        spec = finder(name)
        if spec is None:
            raise ShadowedPackageError(
                f"the package '{name}' of sightcheck is missing from {home}; install sightcheck again"
            )
        found = spec.origin or next(iter(spec.submodule_search_locations or ()), "an unknown place")
        if Path(found).resolve() != home / name / "__init__.py":
            raise ShadowedPackageError(
                f"the package '{name}' is shadowed by {found}; sightcheck needs the one in "
                f"{home}: rename or uninstall the other, or take its folder out of PYTHONPATH"
            )


if __name__ == "__main__":
    sys.exit(main())
