"""The numbers of a model card: estimates in an evaluation's JSON, the controls among them, what they give away.

No torch, and nothing of how a card is laid out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.estimates import Estimate

_CONTROLS = ("longer", "shorter", "random", "blank", "shuffle", "length")
_PLACES = ("bench", "data", "set", "split")
_KEYS = frozenset({"value", "n", "low", "high"})


@dataclass(frozen=True)
class Measured:
    """One number of an evaluation."""

    name: str
    where: str
    """The set that it was measured on."""
    value: float
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, name: str, where: str, estimate: Estimate) -> "Measured":
        """An estimate under a name."""
        return cls(name, where, estimate.value, estimate.n, estimate.low, estimate.high)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Measured":
        """Undo `dataclasses.asdict`, where null stands for no number."""
        numbers = {key: math.nan if content[key] is None else float(content[key]) for key in ("value", "low", "high")}
        return cls(name=str(content["name"]), where=str(content["where"]), n=int(content["n"]), **numbers)

    def row(self) -> tuple[str, str, str, str, str]:
        """Cells of a table: name, set, value, interval, n."""
        if math.isnan(self.value):
            return self.name, self.where, "none", "", f"{self.n:,}"
        return self.name, self.where, f"{self.value:.3f}", f"[{self.low:.3f}, {self.high:.3f}]", f"{self.n:,}"


def read_measured(content: Any, where: str) -> tuple[Measured, ...]:
    """Find every estimate in JSON: a mapping with `value`, `n`, `low` and `high`, at any depth.

    It is called by the keys that lead to it; in a list of entries, by an entry's `name` and its other texts.

    >>> read_measured({"accuracy": {"micro": {"value": 0.5, "n": 4, "low": 0.1, "high": 0.9}}}, "bench")
    (Measured(name='accuracy micro', where='bench', value=0.5, n=4, low=0.1, high=0.9),)
    """
    return tuple(_found(content, (), where))


def _found(content: Any, path: tuple[str, ...], where: str) -> Iterator[Measured]:
    if isinstance(content, list):
        for entry in content:
            yield from _found(entry, path, where)
    elif isinstance(content, Mapping):
        if content.keys() >= _KEYS and _is_count(content["n"]):
            name = " ".join(part.replace("_", " ") for part in path) or "value"
            yield Measured.from_json({**content, "name": name, "where": where})
            return
        said = str(content["name"]) if isinstance(content.get("name"), str) else ""
        on = next((str(content[key]) for key in _PLACES if isinstance(content.get(key), str)), where)
        for key, value in content.items():
            inner = () if key in ("estimate", "accuracy") and said else (str(key),)
            extra = _qualifiers(content) if said else ()
            yield from _found(value, (*path, *((said,) if said else ()), *extra, *inner), on)


def _qualifiers(entry: Mapping[str, Any]) -> tuple[str, ...]:
    skipped = ("name", *_PLACES)
    return tuple(str(value) for key, value in entry.items() if key not in skipped and isinstance(value, str))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def controls(measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """The numbers that tell how far a score can be had without reading or looking."""
    return tuple(entry for entry in measured if any(word in entry.name.lower() for word in _CONTROLS))


def biases(measured: Sequence[Measured], sees: bool) -> list[str]:
    """What the numbers give away, in sentences; where nothing was measured, that."""
    lines = [line for entry in measured if (line := _told(entry))]
    if sees and not any("blank" in entry.name.lower() for entry in measured):
        lines.append("Whether it looks at the image was not measured.")
    if not any("length" in entry.name.lower() for entry in measured):
        lines.append("Whether it pays for length was not measured.")
    return lines or ["Nothing measured here shows one. That is no proof that there is none."]


def _told(entry: Measured) -> str:
    name, shown = entry.name.lower(), f"{entry.value:.3f} [{entry.low:.3f}, {entry.high:.3f}] (n = {entry.n:,})"
    if "drop" in name and "blank" in name and entry.low <= 0:
        return f"On {entry.where}, accuracy does not detectably drop when the images are blanked: {shown}."
    if "correlation" in name and "length" in name and (entry.low > 0 or entry.high < 0):
        kind = "longer" if entry.value > 0 else "shorter"
        return f"On {entry.where}, it favours {kind} responses at fixed quality: correlation {shown}."
    if name.endswith("longer ruler") and (entry.low > 0.5 or entry.high < 0.5):
        kind = "longer" if entry.value > 0.5 else "shorter"
        often = f"the {kind} response is the better one more often than not ({shown})"
        return f"On {entry.where}, {often}: length can pass for quality there."
    return ""
