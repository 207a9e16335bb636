"""Model cards of reward models: what a checkpoint was made from, what its scores mean, and what was measured.

A card holds no number that did not come from a run; what was not measured is named as such. Text in, text out: this
file loads no model, and imports no torch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from probes.files import read_json, without_nan, write_bytes, write_json
from probes.inputs import InputError
from rewardmodels.card_numbers import Measured, biases, controls, read_measured
from rewardmodels.card_snippets import snippets

FACTS_FILE = "reward_card.json"
"""Lies beside the weights; what the card is written from."""
CARD_FILE = "README.md"
TAGS = ("reward-trainer", "trl", "reward-model")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class CardFacts:
    """What a card tells. Empty text and None mean that it is not known, and nothing is said of it."""

    name: str
    architecture: str
    """The class that `config.json` names."""
    native: bool
    """Whether transformers has that class itself."""
    sees: bool
    """Whether images are read."""
    dtype: str
    template: str
    """SHA-256 of the chat template that responses are scored in."""
    adds_special_tokens: bool = False
    """Whether the tokenizer adds marks of its own to the rendered chat."""
    max_length: int | None = None
    max_pixels: str = ""
    base: str = ""
    data: str = ""
    data_digest: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What became of the data's pairs, such as "pairs trained on" and "ties left out"."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings by name, such as "learning rate"."""
    mean: float | None = None
    deviation: float | None = None
    scored: str = ""
    """The set that mean and deviation are of."""
    offset: float = 0.0
    converted: str = ""
    """Where a converted head was found."""
    measured: tuple[Measured, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found: dict[str, Any] = without_nan(asdict(self))
        return found

    @classmethod
    def from_json(cls, content: Any, source: str) -> "CardFacts":
        """Undo `as_json`; keys of a later version are left out.

        Raises:
            InputError: If it is no card's facts.
        """
        known = {entry.name for entry in fields(cls)}
        try:
            values = {key: value for key, value in content.items() if key in known}
            values["measured"] = tuple(Measured.from_json(entry) for entry in values.get("measured", ()))
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source} holds no facts of a model card ({error}); train or convert the model"
            ) from error


def write_card(folder: str | Path, facts: CardFacts) -> Path:
    """Write `README.md` and the facts that it was written from beside a checkpoint's weights; returns the card."""
    target = Path(folder)
    write_json(target / FACTS_FILE, facts.as_json())
    write_bytes(target / CARD_FILE, card_text(facts).encode())
    return target / CARD_FILE


def read_facts(folder: str | Path) -> CardFacts:
    """Return what a checkpoint's card was written from.

    Raises:
        InputError: If there is none.
    """
    path = Path(folder) / FACTS_FILE
    if not path.is_file():
        raise InputError(f"{folder} has no {FACTS_FILE}, so it was not made by sightcheck reward train or convert")
    return CardFacts.from_json(read_json(path), str(path))


def with_evaluation(facts: CardFacts, path: str | Path) -> CardFacts:
    """Return facts with the numbers of an evaluation added; those of the same name and set are replaced.

    Args:
        facts: What is known.
        path: JSON that holds estimates (mappings with `value`, `n`, `low` and `high`) at any depth.

    Raises:
        InputError: If the file cannot be read or holds no estimate.
    """
    found = read_measured(read_json(Path(path)), Path(path).stem)
    if not found:
        raise InputError(
            f"{path} holds no estimate, which is a value with its n, low and high: give an evaluation's JSON"
        )
    return with_measured(facts, found)


def with_measured(facts: CardFacts, found: Sequence[Measured]) -> CardFacts:
    """Return facts with numbers added; those of the same name and set are replaced."""
    new = {(entry.name, entry.where) for entry in found}
    kept = tuple(entry for entry in facts.measured if (entry.name, entry.where) not in new)
    return replace(facts, measured=(*kept, *found))


def card_text(facts: CardFacts) -> str:
    """Return the whole card: front matter that the hub reads, then Markdown."""
    parts = [
        f"---\n{_front_matter(facts)}\n---",
        f"# {_inline(facts.name)}",
        _opening(facts),
        _table("How it was made", ("", ""), _making(facts)),
        "## What a score means\n\n" + _convention(facts),
        *_evaluation(facts),
        "## Known biases\n\n" + "\n".join(f"- {line}" for line in biases(facts.measured, facts.sees)),
        "## Load it\n\n" + snippets(facts.native, facts.sees, facts.adds_special_tokens),
        _versions(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=facts.base if _is_hub_id(facts.base) else None,
        datasets=[facts.data] if _is_hub_id(facts.data) else None,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=list(TAGS),
    )
    return str(data.to_yaml()).strip()


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def _opening(facts: CardFacts) -> str:
    reads = "images and text" if facts.sees else "text only"
    base = f" on `{_code(facts.base)}`" if facts.base else ""
    made = f", converted from {_inline(facts.converted)}" if facts.converted else ""
    return f"A reward model{base}: one number for a prompt with its response. It reads {reads}{made}."


def _making(facts: CardFacts) -> list[tuple[str, str]]:
    rows = [
        ("base model", f"`{_code(facts.base)}`" if facts.base else ""),
        ("architecture", f"`{facts.architecture}`" + ("" if facts.native else " (class in `reward_head.py`)")),
        ("data", f"{_inline(facts.data)}" + (f", SHA-256 `{facts.data_digest[:16]}`" if facts.data_digest else "")),
        *((name, f"{count:,}") for name, count in facts.counts.items()),
        *((name, _inline(_plain(value))) for name, value in facts.training.items() if value not in (None, "")),
        ("number format", facts.dtype),
        ("chat template", f"the processor's own, SHA-256 `{facts.template[:16]}`" if facts.template else ""),
        ("most tokens", f"{facts.max_length:,}" if facts.max_length else "no bound"),
        ("image size", facts.max_pixels if facts.sees else ""),
    ]
    return [row for row in rows if row[1]]


def _convention(facts: CardFacts) -> str:
    lines = [
        "A raw logit: unbounded, higher is better, and comparable between responses to one prompt, within this model "
        "only. The probability that the first of two responses is preferred is the sigmoid of the scores' difference.",
    ]
    if facts.mean is not None and facts.deviation is not None:
        lines.append(
            f"Scores of {_inline(facts.scored or 'the set that the original normalised by')}: mean {facts.mean:.3f}, "
            f"standard deviation {facts.deviation:.3f} (also in `reward_meta.json`)."
        )
    if facts.offset:
        lines.append(
            f"The original checkpoint's head had a bias: its score is this one plus {facts.offset:.6g}. Differences "
            "between scores are the same."
        )
    return "\n\n".join(lines)


def _evaluation(facts: CardFacts) -> list[str]:
    if not facts.measured:
        return ["## Evaluation\n\nNone ran. Length rulers and the blank-image control are not known."]
    beside = controls(facts.measured)
    rest = [entry for entry in facts.measured if entry not in beside]
    heads = ("", "on", "value", "95 % interval", "n")
    parts = [_table("Evaluation", heads, [entry.row() for entry in rest])] if rest else []
    if beside:
        parts.append(_table("Controls", heads, [entry.row() for entry in beside]))
    missing = [
        name
        for name, words in (("length rulers", ("longer",)), ("the blank-image control", ("blank",)))
        if not any(word in entry.name.lower() for entry in beside for word in words)
        and (facts.sees or name == "length rulers")
    ]
    return [*parts, *([f"Not measured: {' and '.join(missing)}."] if missing else [])]


def _versions(facts: CardFacts) -> str:
    named = ", ".join(f"{name} {found}" for name, found in facts.versions.items())
    return f"Made with {named}." if named else ""


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return f"## {title}\n\n" + "\n".join(lines)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _inline(text: str) -> str:
    """Text on one line that Markdown and HTML take as text."""
    return re.sub(r"([\\`*\[\]<>#])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
