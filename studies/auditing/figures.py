"""The figures of an audit, drawn from its evidence and entries, and written into its run folder.

It chooses what is drawn and writes the captions; how things are drawn is `viz.papers`. No torch.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from probes.estimates import Estimate
from studies.auditing.causal_metrics import MIN_EFFECT, right_without_image
from studies.auditing.choices import focus_of
from studies.auditing.entries import Entry, find
from studies.auditing.evidence import FloatArray
from studies.auditing.finalise import Final
from studies.auditing.plan import draw, draw_evenly
from studies.auditing.summary import headline_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from studies.runs import RunFolder

DPI = 150
EXAMPLES = 6
"""Samples that were right for the wrong reason and get a heat map of their factors."""
OVERLAYS = 8
"""Samples whose maps are laid over their images."""
POSITION_GROUPS = 4
"""Numbers of places whose position study is drawn, those of most samples first."""
PAIRWISE_LAYERS = 4
"""Last layers that the image-to-image matrix is averaged over."""
PAIRWISE_SAMPLES = 2000
"""Most samples that it is averaged over."""


class Figure(NamedTuple):
    """A figure that was written: what it shows, its file inside the run folder, its caption, its sample if one."""

    kind: str
    file: str
    caption: str
    sample: str = ""


def draw_figures(folder: "RunFolder", final: Final) -> list[Figure]:
    """Draw and write every figure that the run has the numbers for; kinds are those of the report's sections."""
    from studies.auditing.kind_figures import draw_kinds

    split = headline_split(final.entries)
    drawn = [
        *_layers(final, split),
        *draw_kinds(folder.manifest.config, final, split),
        *_factors(final, split),
        *_image_to_image(folder, final, split),
        *_overlays(folder, final, split),
        *_positions(final.entries),
        *_causal(final.entries, split),
        *_without_images(final.entries, split),
    ]
    written = []
    for figure, drawing in drawn:
        folder.write_file(figure.file, png(drawing))
        written.append(figure)
    return written


def png(drawing: "Drawing") -> bytes:
    """A drawing as PNG; the same drawing gives the same bytes."""
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def untrained_figure(entries: Sequence[Entry]) -> bytes:
    """P(focus = target) of untrained weights by layer, one series per row set, with the chance line, as PNG."""
    series = {
        rows: [entry for entry in entries if entry["rows"] == rows and entry["layer"] is not None]
        for rows in dict.fromkeys(entry["rows"] for entry in entries)
    }
    return png(_by_layer(series, "", "P(focus = target), untrained weights"))


Drawn = Iterator[tuple[Figure, "Drawing"]]


def _layers(final: Final, split: str | None) -> Drawn:
    names = [("attention_accuracy", "attention accuracy"), ("attention_overall", "P(focus = target)")]
    for name, quantity in names:
        series = {rows: find(final.entries, name, layer=..., split=split, rows=rows) for rows in final.choices}
        series = {rows: _layered(found) for rows, found in series.items()}
        if _has_values(series):
            given = " among right answers" if name == "attention_accuracy" else " over all answers"
            caption = (
                f"How often each single layer's largest factor is on the target image{given}, split {split}. Bands are "
                "95 % intervals clustered by base sample; dashed lines are chance."
            )
            yield Figure("layers", f"figures/{name}.png", caption), _by_layer(series, "", quantity)
    tasks = dict.fromkeys(entry["task"] for entry in find(final.entries, "attention_accuracy", task=..., split=split))
    by_task = {
        task: _layered(find(final.entries, "attention_accuracy", task=task, layer=..., split=split, rows="paper"))
        for task in tasks
        if task is not None
    }
    if _has_values(by_task):
        caption = f"Attention accuracy by layer and task, rows paper, split {split}."
        yield Figure("layers", "figures/tasks.png", caption), _by_layer(by_task, "", "attention accuracy")


def _by_layer(series: dict[str, list[Entry]], title: str, quantity: str) -> "Drawing":
    from viz import papers

    kept = {label: found for label, found in series.items() if _has_values({label: found})}
    tables = [numbers_of(found) for found in kept.values()]
    layers = [entry["layer"] for entry in next(iter(kept.values()))]
    value, low, high = (np.stack([table[:, column] for table in tables]) for column in range(3))
    chance = [chance_of(found[0]) for found in kept.values()]
    labels = [_literal(label) for label in kept]
    return papers.layer_accuracy(layers, value, low, high, chance, labels=labels, title=title, quantity=quantity)


def _factors(final: Final, split: str | None) -> Drawn:
    from viz import papers

    if "paper" not in final.choices:
        return
    for index, focus in _examples(final, split):
        name, target = final.evidence.ids[index], int(final.evidence.target[index])
        table = final.evidence.factors["paper"][index]
        drawing = papers.factor_heatmap(table, final.evidence.layers, target=target, per_layer=True)
        caption = f"Each image's share of a layer's factors. The answer was right, the focus on image {focus + 1}."
        yield Figure("factors", f"figures/factors-{index}.png", caption, name), drawing


def _examples(final: Final, split: str | None) -> list[tuple[int, int]]:
    """Index and focus of samples that were right while the focus was elsewhere, evenly over tasks."""
    evidence = final.evidence
    focused = focus_of(evidence, "paper", final.choices["paper"].rule)
    wrong_reason = (evidence.correct == 1) & (evidence.target >= 0) & (focused >= 0) & (focused != evidence.target)
    places = np.flatnonzero(wrong_reason & (evidence.split == split))
    groups = {evidence.ids[place]: str(evidence.task[place]) for place in places}
    chosen = set(draw_evenly(groups, EXAMPLES, seed=0))
    return [(int(place), int(focused[place])) for place in places if evidence.ids[place] in chosen]


def _image_to_image(folder: "RunFolder", final: Final, split: str | None) -> Drawn:
    from viz import papers

    if not folder.count("pairwise"):
        return
    evidence = final.evidence
    layers = list(evidence.layers[-PAIRWISE_LAYERS:])
    names = {name: int(count) for name, count in zip(evidence.ids, evidence.n_images, strict=True)}
    of_split = [name for name, own in zip(evidence.ids, evidence.split, strict=True) if own == split]
    wanted = set(draw(of_split, PAIRWISE_SAMPLES, seed=0))
    sums: dict[int, FloatArray] = {}
    counts: Counter[int] = Counter()
    for batch in folder.scan("pairwise", filter=pc.field("layer").isin(layers)):
        for row in batch.to_pylist():
            if row["sample_id"] in wanted:
                size = names[row["sample_id"]] + 1
                table = sums.setdefault(size, np.zeros((size, size)))
                table[row["from_image"], row["to_image"]] += np.nan if row["factor"] is None else row["factor"]
                counts[size] += int(row["from_image"] == 0 and row["to_image"] == 0)
    if not counts:
        return
    size, total = counts.most_common(1)[0]
    caption = (
        f"Attention from each image's tokens, and from the text after the last image, to each image and to the text: "
        f"mean over the last {len(layers)} layers and {total // len(layers)} samples of {size - 1} images, split "
        f"{split}. The last image is the one that is compared with the others; under a "
        "causal mask no image sees a later one."
    )
    figure = Figure("image-to-image", "figures/image-to-image.png", caption)
    yield figure, papers.image_to_image(sums[size] / total)


def _overlays(folder: "RunFolder", final: Final, split: str | None) -> Drawn:
    from studies.auditing.overlays import overlay_of

    if "paper" not in final.choices or not folder.count("maps"):
        return
    evidence = final.evidence
    have = set(folder.read("maps", columns=["sample_id"]).column("sample_id").unique().to_pylist())
    rule = final.choices["paper"].rule
    focused = focus_of(evidence, "paper", rule)
    groups = {}
    for index, name in enumerate(evidence.ids):
        if name in have and evidence.split[index] == split:
            hit = focused[index] == evidence.target[index]
            groups[name] = f"{evidence.task[index]}, {evidence.correct[index]}, {hit}"
    for name in draw_evenly(groups, OVERLAYS, seed=0):
        index = evidence.ids.index(name)
        layers = evidence.layers[-rule.last :]
        drawing = overlay_of(folder, name, layers, int(focused[index]))
        answered = {1.0: "right", 0.0: "wrong"}.get(float(evidence.correct[index]), "not scored")
        caption = (
            f"Sample {name}, task {evidence.task[index] or 'none'}, answered {answered}: attention of rows paper to "
            f"each cell, mean over layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}, one color scale for "
            "all images."
        )
        yield Figure("overlays", f"figures/overlay-{index}.png", caption, name), drawing


def _positions(entries: Sequence[Entry]) -> Drawn:
    from viz import papers

    spreads = find(entries, "answer_spread", places=..., rows="paper")
    order = sorted(spreads, key=lambda entry: -entry["estimate"]["n"])[:POSITION_GROUPS]
    for spread in sorted(order, key=lambda entry: entry["places"]):
        key: dict[str, Any] = {"rows": "paper", "places": spread["places"], "split": spread["split"]}
        answers = find(entries, "answer_accuracy", position=..., **key)
        looks = find(entries, "attention_accuracy", position=..., **key)
        beside = find(entries, "attention_spread", **key)[0]
        if not _has_values({"answer": answers}):
            continue
        answer, look = numbers_of(answers), numbers_of(looks)
        seen = bool(np.isfinite(numbers_of([beside])).all() and np.isfinite(numbers_of([spread])).all())
        drawing = papers.positions(
            answer[:, 0],
            look[:, 0],
            answer[:, 1:],
            look[:, 1:],
            answer_spread=numbers_of([spread])[0].tolist() if seen else None,
            attention_spread=numbers_of([beside])[0].tolist() if seen else None,
            chance=looks[0].get("chance"),
        )
        caption = f"Target at each of {spread['places']} places: n = {spread['estimate']['n']}, rows paper."
        yield Figure("positions", f"figures/positions-{spread['places']}.png", caption), drawing


def _causal(entries: Sequence[Entry], split: str | None) -> Drawn:
    from viz import papers

    found = find(entries, "causal_agreement", split=split, rows="paper", intervention=..., window="all", layer=...)
    kinds = list(dict.fromkeys(entry["intervention"] for entry in found))
    series = {kind: _layered([entry for entry in found if entry["intervention"] == kind]) for kind in kinds}
    if not kinds or not _has_values(series):
        return
    ruled = {
        rows: find(entries, "causal_agreement", split=split, rows=rows, intervention=..., window="all")
        for rows in ("paper", "predicting")
    }
    ruled = {rows: own for rows, own in ruled.items() if len(own) == len(kinds)}
    tables = np.stack([numbers_of(series[kind]) for kind in kinds])
    rules = np.stack([numbers_of(own) for own in ruled.values()], axis=1)
    drawing = papers.causal_agreement(
        [entry["layer"] for entry in series[kinds[0]]],
        tables[..., 0],
        tables[..., 1],
        tables[..., 2],
        [chance_of(series[kind][0]) for kind in kinds],
        kinds,
        rules=[f"{rows}: {own[0]['rule']}, N = {own[0]['last']}" for rows, own in ruled.items()],
        rule_value=rules[..., 0],
        rule_low=rules[..., 1],
        rule_high=rules[..., 2],
    )
    n = found[0]["estimate"]["n"]
    caption = (
        f"How often the image in focus is the one whose loss hurts the answer most, n = {n} samples to which an image "
        "mattered: by single layer (rows paper), and by the run's rules."
    )
    yield Figure("causal", "figures/causal.png", caption), drawing


def _without_images(entries: Sequence[Entry], split: str | None) -> Drawn:
    from viz import papers

    found = [entry for entry in right_without_image(entries, split, intervention=...) if entry["task"] is not None]
    tasks = list(dict.fromkeys(entry["task"] for entry in found))
    kinds = list(dict.fromkeys(entry["intervention"] for entry in found))
    if not tasks or len(found) != len(tasks) * len(kinds):
        return
    by_both = {(entry["intervention"], entry["task"]): entry for entry in found}
    tables = np.stack([numbers_of([by_both[kind, task] for task in tasks]) for kind in kinds])
    drawing = papers.shares(
        [_literal(task) for task in tasks],
        tables[..., 0],
        tables[..., 1],
        tables[..., 2],
        kinds,
        quantity="right, no image matters",
    )
    n = sum(entry["estimate"]["n"] for entry in found if entry["intervention"] == kinds[0])
    caption = (
        f"Of the right answers of each task, how many change by at most {MIN_EFFECT} nat whichever single image is "
        f"taken away, n = {n} in all: the text alone told them, or ruling out the other images did."
    )
    yield Figure("causal", "figures/without-images.png", caption), drawing


def _literal(label: str) -> str:
    """A text of the data as a label: matplotlib would read what stands between two dollar signs as a formula."""
    return label.replace("$", r"\$")


def _layered(found: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in found if entry["layer"] is not None]


def numbers_of(found: Sequence[Entry]) -> FloatArray:
    """(entries, 3) value, low and high."""
    estimates = [Estimate.from_dict(entry["estimate"]) for entry in found]
    return np.array([[each.value, each.low, each.high] for each in estimates], dtype=np.float64)


def chance_of(entry: Entry) -> float:
    """An entry's chance level; NaN where it has none."""
    level = entry.get("chance")
    return np.nan if level is None else float(level)


def _has_values(series: dict[str, list[Entry]]) -> bool:
    return any(entry["estimate"]["value"] is not None for found in series.values() for entry in found)
