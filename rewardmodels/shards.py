"""Long work on many items, saved in shards: each is whole or absent, and what is there already is not done again.

A folder holds the work's plan and ``scores/part-000012.parquet`` and so on. Knows no scorer and no view. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from probes.files import clean_temporaries, read_json, write_json
from probes.inputs import ImageRef, InputError
from rewardmodels.records import Preference
from rewardmodels.scores import ScoreRow, read_rows, write_rows

Item = TypeVar("Item")
_PLAN = "plan.json"
_SCORES = "scores"


def run_in_shards(
    items: Sequence[Item],
    score: Callable[[Sequence[Item]], list[ScoreRow]],
    folder: Path | None,
    plan: Mapping[str, Any],
    *,
    size: int = 256,
    retry_failed: bool = False,
    advance: Callable[[int], object] | None = None,
) -> list[ScoreRow]:
    """Score items shard by shard.

    Args:
        items: What is scored, in an order that the plan fixes.
        score: Gives one row per item.
        folder: Where shards are kept; None keeps none.
        plan: What decides the rows, as JSON; a folder with another plan is refused.
        size: Items in a shard.
        retry_failed: Score items again that failed in an earlier run.
        advance: Called with the number of items after each shard.

    Raises:
        InputError: The folder holds other work, or something that cannot be read.
        ValueError: ``size`` is below 1, or ``score`` gives another number of rows.
    """
    if size < 1:
        raise ValueError(f"a shard holds at least one item, not {size}")
    if folder is not None:
        _claim(folder, {**plan, "items": len(items), "shard": size})
    rows: list[ScoreRow] = []
    for number, start in enumerate(range(0, len(items), size)):
        some = items[start : start + size]
        path = None if folder is None else folder / _SCORES / f"part-{number:06d}.parquet"
        rows += _shard(some, score, path, retry_failed)
        if advance is not None:
            advance(len(some))
    return rows


def _shard(
    items: Sequence[Item], score: Callable[[Sequence[Item]], list[ScoreRow]], path: Path | None, retry_failed: bool
) -> list[ScoreRow]:
    there = read_rows(path) if path is not None and path.is_file() else None
    if there is not None and len(there) != len(items):
        raise InputError(f"{path} holds {len(there)} rows for {len(items)} items: delete it")
    again = [place for place, row in enumerate(there or ()) if row.score is None] if retry_failed else []
    if there is not None and not again:
        return there
    wanted = again if there is not None else list(range(len(items)))
    new = score([items[place] for place in wanted])
    if len(new) != len(wanted):
        raise ValueError(f"{len(wanted)} items need as many rows, and {len(new)} were made")
    done = dict(enumerate(there or ())) | dict(zip(wanted, new, strict=True))
    rows = [done[place] for place in range(len(items))]
    if path is not None:
        write_rows(path, rows)
    return rows


def _claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan, or hold it against the one that is there."""
    path = folder / _PLAN
    if not path.exists():
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no {_PLAN}: give a new folder, or one to go on in")
        write_json(path, plan)
        return
    there = read_json(path)
    if there != plan:
        known = there if isinstance(there, dict) else {}
        changed = sorted(key for key in {*known, *plan} if known.get(key) != plan.get(key))
        raise InputError(f"{folder} holds other work: {', '.join(changed)} differ; give another folder")
    for part in (folder, folder / _SCORES):
        if part.is_dir():
            clean_temporaries(part)


def digest_of_records(records: Sequence[Preference]) -> str:
    """SHA-256 of everything that records say, with the bytes of their images; unreadable images count by name."""
    total = hashlib.sha256()
    for record in records:
        images = [*record.images, *(image for response in record.responses for image in response.images)]
        content: dict[str, Any] = {
            "id": record.id,
            "prompt": [[turn.role, turn.text, len(turn.images)] for turn in record.prompt],
            "responses": [[response.text, len(response.images)] for response in record.responses],
            "ranks": record.ranks,
            "kept": [record.group, record.source, record.cluster],
            "images": [digest_or_name(image) for image in images],
        }
        total.update(f"{json.dumps(content, sort_keys=True)}\n".encode())
    return total.hexdigest()


def digest_or_name(image: ImageRef) -> str:
    """SHA-256 of an image's bytes; its name where they cannot be read."""
    try:
        return image.digest
    except InputError:
        return image.name
