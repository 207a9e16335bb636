"""Preferences for training and for held-out checks: read, counted, and known by one digest. No torch.

`bundled` is the environment that comes along; everything else is read by `rewardmodels.preferences`.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probes.errors import counted
from probes.inputs import ImageRef, InputError
from rewardmodels.preferences import Preferences, read_preferences
from rewardmodels.records import Preference, PreferencePair
from studies.bundled import BUNDLED
from studies.reward.bundled_pairs import SOURCE, Split, bundled_pairs


@dataclass(frozen=True)
class Given:
    """What was read of one set: its pairs, and what became of everything else."""

    name: str
    pairs: tuple[PreferencePair, ...]
    ties: int
    unranked: int
    """Responses that their source rates with no number."""
    bad: tuple[tuple[str, str], ...]
    """Rows that make no record, each with its reason."""
    digest: str
    why: str

    def counts(self) -> dict[str, int]:
        """What a card and a report say of the set."""
        return {
            "pairs read": len(self.pairs),
            "ties left out": self.ties,
            "responses not ranked": self.unranked,
            "rows unusable": len(self.bad),
        }

    def __repr__(self) -> str:
        told = ", ".join(f"{count:,} {name}" for name, count in self.counts().items())
        return f"Given({self.name!r}: {told})"


def read_given(
    name: str,
    split: Split,
    *,
    format: str | None = None,
    chosen_split: str | None = None,
    subset: str | None = None,
    image_root: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Given:
    """Read one set of preferences.

    Args:
        name: `bundled`, or what `read_preferences` takes.
        split: What it is for; of the bundled environment the split of that name.
        format: As of `read_preferences`.
        chosen_split: As of `read_preferences`.
        subset: As of `read_preferences`.
        image_root: As of `read_preferences`.
        limit: At most that many records, drawn by `seed` and kept in order; None takes all.
        seed: Of that draw, and of the bundled environment.

    Raises:
        InputError: As `read_preferences`, and if no pair is left.
    """
    kept = read_records(
        name,
        split,
        format=format,
        chosen_split=chosen_split,
        subset=subset,
        image_root=image_root,
        limit=limit,
        seed=seed,
    )
    pairs = kept.pairs()
    if not pairs:
        first = next(iter(kept.bad), None)
        bad = (
            f"; {counted(len(kept.bad), 'row', ',')} cannot be read, the first is {first.id}: {first.error}"
            if first
            else ""
        )
        raise InputError(f"{name} holds no pair of a better and a worse response ({kept.why}){bad}")
    return Given(
        name=name,
        pairs=pairs,
        ties=kept.ties,
        unranked=len(kept.skipped),
        bad=tuple((row.id, row.error) for row in kept.bad),
        digest=_digest(kept.records, kept),
        why=kept.why,
    )


def read_records(
    name: str,
    split: Split,
    *,
    format: str | None = None,
    chosen_split: str | None = None,
    subset: str | None = None,
    image_root: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    allow_missing_images: bool = False,
) -> Preferences:
    """Read one set of preferences as records; arguments as of `read_given`.

    Args:
        allow_missing_images: As of `read_preferences`.

    Raises:
        InputError: As `read_preferences`.
    """
    read = (
        Preferences(bundled_pairs(split, None, seed), (), SOURCE, f"{SOURCE}, split {split}")
        if name == BUNDLED
        else read_preferences(
            name,
            format,
            chosen_split,
            subset=subset,
            image_root=image_root,
            allow_missing_images=allow_missing_images,
        )
    )
    return replace(read, records=tuple(_drawn(read.records, limit, seed)))


def judge_bad(bad: Sequence[tuple[str, str]], on_bad: str, what: str = "rows or pairs") -> None:
    """Refuse bad rows, or say on stderr how many are left out.

    Args:
        bad: Each its name and the reason.
        on_bad: refuse or skip.
        what: How messages call them.

    Raises:
        InputError: There are some and they are refused.
    """
    if not bad:
        return
    name, reason = bad[0]
    if on_bad == "refuse":
        raise InputError(
            f"{len(bad):,} {what} cannot be used, the first is {name}: {reason}; mend them, or leave them out "
            "by --on-bad skip"
        )
    print(f"{len(bad):,} {what} are left out, the first is {name}: {reason}", file=sys.stderr)


def _drawn(records: Sequence[Preference], limit: int | None, seed: int) -> Sequence[Preference]:
    from studies.auditing.plan import draw

    if limit is None or limit >= len(records):
        return records
    kept = set(draw([record.id for record in records], limit, seed))
    return [record for record in records if record.id in kept]


def _digest(records: Sequence[Preference], read: Preferences) -> str:
    """SHA-256 over every field of every record; an image counts by its bytes, wherever they lie."""
    total = hashlib.sha256()
    seen: dict[ImageRef, str] = {}

    def digest(image: ImageRef) -> str:
        if image not in seen:
            try:
                seen[image] = image.digest
            except InputError:
                seen[image] = "unreadable"
        return seen[image]

    for record in records:
        row: dict[str, Any] = record.as_json()
        shown = [each.images for each in record.prompt] + [each.images for each in record.responses]
        for part, images in zip(row["prompt"] + row["responses"], shown, strict=True):
            part["images"] = [digest(image) for image in images]
        total.update(json.dumps(row, sort_keys=True, default=str).encode())
    total.update(json.dumps([row.error for row in read.bad]).encode())
    return total.hexdigest()
