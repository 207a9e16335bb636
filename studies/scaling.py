"""The scaling study: finished audits of models of several sizes over the same questions, side by side.

It reads run folders and nothing else; it trains and audits nothing. Importing it loads no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from probes.files import write_bytes, write_json
from probes.inputs import InputError
from studies.auditing.entries import Entry, find
from studies.auditing.kinds import label_of, measures_of, named_kind
from studies.auditing.summary import headline_split, percent

if TYPE_CHECKING:
    from studies.runs import RunFolder

ROWS = ("paper", "predicting")
METRICS = (
    ("answers right", "answer_accuracy", None),
    *((f"attention accuracy, {rows}", "attention_accuracy", rows) for rows in ROWS),
)
"""What every audit says: label, name of the metric, row set."""
LABELS = tuple(label for label, _, _ in METRICS)


@dataclass(frozen=True)
class ScalingConfig:
    """Set audits of models of several sizes side by side: does attention accuracy grow with the model?

    Give run folders that `sightcheck audit` wrote over the same questions. Writes scaling.json and scaling.png; and,
    where all of them recorded hidden attention in layers of the same kind, scaling-kinds.png.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Two or more finished audits."""
    out: Path = Path("runs/scaling")
    """The folder to write."""


@dataclass(frozen=True)
class Measured:
    """What one audit says of one model."""

    split: str
    entries: tuple[Entry, ...]
    """Those of `METRICS` over all tasks and by task, and attention accuracy by every measure beside attention factors,
    each with its ``label``."""
    manifest: dict[str, Any]

    @property
    def model(self) -> str:
        """Folder or hub id of the model."""
        return str(self.manifest["config"]["model"])

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return int(self.manifest["config"]["parameters"])

    @property
    def labels(self) -> list[str]:
        """Labels of the entries over all tasks."""
        return [entry["label"] for entry in self.entries if entry["task"] is None]

    def overall(self, label: str) -> Entry:
        """The entry of that label over all tasks."""
        return next(entry for entry in self.entries if entry["label"] == label and entry["task"] is None)


def run(config: ScalingConfig) -> int:
    """Read the audits, write numbers and figure, and print them; returns 0.

    Raises:
        InputError: If there are fewer than two audits, one is not finished or has nothing to compare, or they asked
            differently; nothing has been written then.
    """
    from studies.auditing.figures import png
    from studies.runs import RunFolder

    if len(config.runs) < 2:
        raise InputError("a scaling study needs two or more audits: sightcheck scaling runs/small runs/large")
    measured = sorted((measure(RunFolder.open(path)) for path in config.runs), key=lambda each: each.parameters)
    check_comparable(measured)
    figure, kinds = png(scaling_figure(measured)), shared_kinds(measured)
    models = [
        {
            "model": each.model,
            "parameters": each.parameters,
            "split": each.split,
            "entries": each.entries,
            "manifest": each.manifest,
        }
        for each in measured
    ]
    write_json(config.out / "scaling.json", {"models": models})
    write_bytes(config.out / "scaling.png", figure)
    written = [config.out / "scaling.json", config.out / "scaling.png"]
    if kinds:
        written.append(config.out / "scaling-kinds.png")
        write_bytes(written[-1], png(scaling_figure(measured, kinds)))
    for each in measured:
        print(f"{each.parameters:>13,} parameters  {each.model}")
        for entry in each.entries:
            if entry["task"] is None:
                print(f"  {entry['label']}: {percent(entry)}, n = {entry['estimate']['n']}")
    for label, recorded_by in unshared_kinds(measured).items():
        print(f"Not drawn, as only {', '.join(recorded_by)} recorded it: {label}")
    print(f"Written: {', '.join(map(str, written))}")
    return 0


def shared_kinds(measured: Sequence[Measured]) -> list[str]:
    """The labels beside those of `METRICS` that all audits have."""
    lacking = unshared_kinds(measured)
    return [label for label in measured[0].labels if label not in LABELS and label not in lacking]


def unshared_kinds(measured: Sequence[Measured]) -> dict[str, list[str]]:
    """The labels that some audits have and others lack, with the models of those that have them."""
    labels = dict.fromkeys(label for each in measured for label in each.labels)
    having = {label: [each.model for each in measured if label in each.labels] for label in labels}
    return {label: models for label, models in having.items() if len(models) < len(measured)}


def measure(folder: "RunFolder") -> Measured:
    """Take the headline split's numbers from a finished audit.

    Raises:
        InputError: If the run is no audit, was not finished, or has no scored answers, or none with a target image.
    """
    if "parameters" not in folder.manifest.config:
        raise InputError(f"{folder.path} does not say how many parameters its model has: audit the model again")
    found = folder.read_metrics()
    split = headline_split(found)
    if split is None:
        raise InputError(f"{folder.path} has no scored answers: there is nothing to compare")
    entries = [
        {**entry, "label": label}
        for label, name, rows in METRICS
        for entry in find(found, name, task=..., split=split, rows=rows)
    ]
    for label, _, _ in METRICS:
        if not any(entry["label"] == label and entry["task"] is None for entry in entries):
            raise InputError(
                f"{folder.path} has no {label}: a scaling study needs questions that name their target image"
            )
    entries += [
        {**entry, "label": f"attention accuracy, {rows}, {label_of(*reading)}"}
        for reading in measures_of(found)[1:]
        for rows in ROWS
        for entry in find(found, "attention_accuracy", task=..., split=split, rows=rows, **named_kind(*reading))
    ]
    return Measured(split, tuple(entries), folder.manifest.as_json())


def check_comparable(measured: Sequence[Measured]) -> None:
    """Refuse audits that asked different questions, or whose answers came about in different ways.

    Given answers are each model's own, so their files may differ; how long a model might have answered itself does not
    matter beside them.

    Raises:
        InputError: Naming the models and what differs.
    """
    first = measured[0]
    for other in measured[1:]:
        both = f"{first.model} and {other.model}"
        given = [has_given_answers(each.manifest) for each in (first, other)]
        if (other.manifest["data_digest"], other.split) != (first.manifest["data_digest"], first.split):
            lacking = "; files of --answers must answer the same of them" if any(given) else ""
            raise InputError(
                f"{both} were asked different questions: audit both with the same --data, --split and --limit{lacking}"
            )
        if given[0] != given[1]:
            alone, told = (other, first) if given[0] else (first, other)
            raise InputError(
                f"the answers of {told.model} were given (--answers) and {alone.model} generated its own, so what "
                "differs may be how they were made: audit both with --answers, each with its own file, or both without"
            )
        ours, theirs = (each.manifest["config"].get("max_new_tokens") for each in (first, other))
        if not given[0] and ours != theirs:
            raise InputError(
                f"{both} differ in max_new_tokens ({ours} and {theirs}), so one may have been cut short where "
                "the other was not: audit both with the same --max-new-tokens"
            )


def has_given_answers(manifest: Mapping[str, Any]) -> bool:
    """Whether an audit scored answers made elsewhere, by its manifest."""
    return manifest["config"].get("answers_digest") is not None


def scaling_figure(measured: Sequence[Measured], labels: Sequence[str] = LABELS) -> Any:
    """Accuracies, with intervals and chance, against the number of parameters.

    Args:
        measured: The audits.
        labels: What is drawn; all audits have it.
    """
    from studies.auditing.figures import chance_of, numbers_of
    from viz import papers

    found = [[each.overall(label) for each in measured] for label in labels]
    numbers = np.stack([numbers_of(entries) for entries in found])
    chance = [float(np.mean([chance_of(entry) for entry in entries])) for entries in found]
    return papers.scaling(
        [each.parameters for each in measured],
        numbers[..., 0],
        numbers[..., 1],
        numbers[..., 2],
        chance,
        list(labels),
        quantity="share of test questions",
    )
