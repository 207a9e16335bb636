"""What the Runs view reads: a page of samples under filters, one sample with its arrays, the choices there are.

Reads run folders through `studies.runs` only, a page or a sample at a time; knows nothing of the page's layout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.inputs import ImageRef, InputError
from studies.auditing.causal_metrics import KNOCKOUT, MIN_EFFECT, MIXERS_TOO
from studies.explorer.shown import ROW_NAMES, Edges, Picture, Shown, painting_order, picture
from studies.runs import RunFolder

PAGE = 12
VERDICTS = {
    "all": "All samples",
    "lucky": "Right for the wrong reason",
    "without_image": "Right, no image matters",
    "right": "Right",
    "wrong": "Wrong",
    "saw": "Wrong, though it looked at the target",
    "errors": "Errors",
}
"""The first filter: name to words. Whether an image matters is known of the samples of the causal check only."""

_CONDITIONS = {
    "all": "true",
    "lucky": "correct AND target IS NOT NULL AND focus IS NOT NULL AND focus <> target",
    "without_image": f"""correct AND sample_id IN (
        SELECT sample_id FROM effects
        WHERE intervention IN ('{KNOCKOUT}', '{MIXERS_TOO}') AND "window" = 'all'
        GROUP BY sample_id HAVING max(abs(effect)) FILTER (isfinite(effect)) <= {MIN_EFFECT})""",
    "right": "correct",
    "wrong": "correct = false",
    "saw": "correct = false AND focus = target",
    "errors": "error IS NOT NULL",
}
_TABLE = """
WITH picked AS (SELECT sample_id, focus FROM focus WHERE rows = $rows AND rule = $rule AND last = $last),
     joined AS (SELECT samples.*, picked.focus FROM samples LEFT JOIN picked USING (sample_id))
"""
_GREY = Image.new("RGB", (64, 64), (205, 209, 215))


class FocusRule(NamedTuple):
    """How the focus in the table is picked: row set, rule, and number of last layers."""

    rows: str
    rule: str
    last: int

    @property
    def words(self) -> str:
        """The rule and its layers, in words."""
        return f"{self.rule}, last {self.last}"


@dataclass(frozen=True)
class Filters:
    """What the table shows; None shows all."""

    verdict: str = "all"
    task: str | None = None
    images: int | None = None
    split: str | None = None
    rule: FocusRule | None = None


@dataclass(frozen=True)
class Page:
    """Some rows of the table, and how many there are under the filters."""

    rows: list[dict[str, Any]]
    total: int
    checked: bool = True
    """Whether the filters ask for nothing that the run did not measure."""


@dataclass(frozen=True)
class Choices:
    """The values that a run's filters can take."""

    tasks: list[str]
    images: list[int]
    splits: list[str]
    rules: list[FocusRule]


def choices(run: RunFolder) -> Choices:
    """Read which tasks, image counts, splits and focus rules a run has."""

    def distinct(column: str) -> list[Any]:
        sql = f"SELECT DISTINCT {column} AS value FROM samples WHERE {column} IS NOT NULL ORDER BY value"
        return [value for value in run.query(sql).column("value").to_pylist() if value != ""]

    rules = run.query("SELECT DISTINCT rows, rule, last FROM focus ORDER BY rows, rule, last").to_pylist()
    found = [FocusRule(row["rows"], row["rule"], row["last"]) for row in rules]
    order = {"paper": 0, "predicting": 1}
    found.sort(key=lambda rule: order.get(rule.rows, 2))
    return Choices(distinct("task"), distinct("n_images"), distinct("split"), found)


def page(run: RunFolder, filters: Filters, offset: int = 0, size: int = PAGE) -> Page:
    """Read one page of samples, ordered by id.

    Args:
        run: The run.
        filters: Which samples.
        offset: How many of them to leave out first.
        size: How many to read.

    Raises:
        InputError: If the verdict is not one of `VERDICTS`.
    """
    sql, parameters = _where(filters)
    total = int(run.query(f"{_TABLE} SELECT count(*) AS n FROM joined {sql}", parameters).column("n")[0].as_py())
    columns = "sample_id, task, n_images, answer, gold, target, focus, correct, error"
    rows = run.query(
        f"{_TABLE} SELECT {columns} FROM joined {sql} ORDER BY sample_id LIMIT $size OFFSET $offset",
        {**parameters, "size": size, "offset": max(0, offset)},
    )
    checked = filters.verdict != "without_image" or run.count("effects") > 0
    return Page(rows.to_pylist(), total, checked)


def _where(filters: Filters) -> tuple[str, dict[str, Any]]:
    if filters.verdict not in _CONDITIONS:
        raise InputError(f"there is no filter {filters.verdict!r}: choose one of {', '.join(VERDICTS.values())}")
    rule = filters.rule or FocusRule("", "", 0)
    parameters: dict[str, Any] = {"rows": rule.rows, "rule": rule.rule, "last": rule.last}
    parts = [f"({_CONDITIONS[filters.verdict]})"]
    for column, value in (("task", filters.task), ("n_images", filters.images), ("split", filters.split)):
        if value is not None:
            parts.append(f"{column} = ${column}")
            parameters[column] = value
    return "WHERE " + " AND ".join(parts), parameters


@dataclass(frozen=True)
class Sample:
    """One sample of a run: its row, and its arrays where they are stored."""

    row: Mapping[str, Any]
    shown: Shown | None
    effects: tuple[tuple[str, str, int, float], ...]


def read_sample(run: RunFolder, sample_id: str, rules: Sequence[FocusRule] = ()) -> Sample:
    """Read one sample with its images, maps and factors.

    Args:
        run: The run.
        sample_id: Which sample.
        rules: How the focus shown is picked, one per row set.

    Raises:
        InputError: If the run has no such sample.
    """
    row = run.sample(sample_id)
    effects = run.query(
        'SELECT intervention, "window", image, effect FROM effects WHERE sample_id = $id AND effect IS NOT NULL '
        "ORDER BY intervention, 2, image",
        {"id": sample_id},
    )
    return Sample(row, _shown(run, row, rules), tuple(tuple(line.values()) for line in effects.to_pylist()))


def _shown(run: RunFolder, row: Mapping[str, Any], rules: Sequence[FocusRule]) -> Shown | None:
    sample_id, count = row["sample_id"], row["n_images"] or 0
    if count == 0:
        return None
    layers, factors = _factors(run, sample_id, count)
    cells = run.rows_of("cells", sample_id).to_pylist()
    return Shown(
        pictures=tuple(_picture(run, row, image, cells) for image in range(count)),
        layers=layers,
        factors=factors,
        maps=_maps(run, sample_id, layers, count),
        focus=_focus(run, sample_id, rules),
        rule="; ".join(f"{ROW_NAMES.get(rule.rows, rule.rows)}: {rule.words}" for rule in rules),
        pairwise=_pairwise(run, sample_id, layers, count),
        target=row["target"],
        regions=_regions(row),
    )


def _regions(row: Mapping[str, Any]) -> tuple[Edges, ...]:
    target, boxes = row["target"], row["boxes"] or []
    widths, heights = row["image_widths"] or [], row["image_heights"] or []
    if target is None or not 0 <= target < min(len(widths), len(heights)):
        return ()
    width, height = widths[target], heights[target]
    return tuple((left / width, top / height, right / width, bottom / height) for left, top, right, bottom in boxes)


def _factors(run: RunFolder, sample_id: str, count: int) -> tuple[tuple[int, ...], dict[str, NDArray[np.float64]]]:
    lines = [
        line
        for line in run.rows_of("layers", sample_id).to_pylist()
        if line["measure"] == "factor" and line["head"] == -1 and 0 <= line["image"] < count
    ]
    layers = tuple(sorted({line["layer"] for line in lines}))
    factors = {rows: np.full((len(layers), count), np.nan) for rows in dict.fromkeys(line["rows"] for line in lines)}
    for line in lines:
        value = np.nan if line["factor"] is None else line["factor"]
        factors[line["rows"]][layers.index(line["layer"]), line["image"]] = value
    return layers, factors


def _maps(
    run: RunFolder, sample_id: str, layers: tuple[int, ...], count: int
) -> dict[str, tuple[NDArray[np.float64] | None, ...]]:
    lines = run.rows_of("maps", sample_id).to_pylist()
    held: dict[str, list[NDArray[np.float64] | None]] = {line["rows"]: [None] * count for line in lines}
    for line in lines:
        if line["layer"] not in layers or not 0 <= line["image"] < count:
            continue
        values = np.asarray(line["map"], dtype=np.float64)
        images = held[line["rows"]]
        stack = images[line["image"]]
        if stack is None:
            stack = images[line["image"]] = np.full((len(layers), len(values)), np.nan)
        stack[layers.index(line["layer"])] = values
    return {rows: tuple(images) for rows, images in held.items()}


def _pairwise(run: RunFolder, sample_id: str, layers: tuple[int, ...], count: int) -> NDArray[np.float64] | None:
    lines = run.rows_of("pairwise", sample_id).to_pylist()
    if not lines:
        return None
    matrix = np.full((len(layers), count + 1, count + 1), np.nan)
    for line in lines:
        if line["layer"] in layers and line["factor"] is not None:
            matrix[layers.index(line["layer"]), line["from_image"], line["to_image"]] = line["factor"]
    return matrix


def _focus(run: RunFolder, sample_id: str, rules: Sequence[FocusRule]) -> dict[str, int | None]:
    sql = "SELECT rows, rule, last, focus FROM focus WHERE sample_id = $id"
    lines = run.query(sql, {"id": sample_id}).to_pylist()
    return {
        line["rows"]: line["focus"] for line in lines if FocusRule(line["rows"], line["rule"], line["last"]) in rules
    }


def _picture(run: RunFolder, row: Mapping[str, Any], image: int, cells: list[dict[str, Any]]) -> Picture:
    mine = [cell for cell in cells if cell["image"] == image]
    boxes = [(cell["left"], cell["top"], cell["right"], cell["bottom"]) for cell in mine]
    order = painting_order((bool(cell["thumbnail"]) for cell in mine), (bool(cell["kept"]) for cell in mine))
    widths, heights = row["image_widths"] or [], row["image_heights"] or []
    original = (widths[image], heights[image]) if image < min(len(widths), len(heights)) else None
    stored = _image(run, row, image)
    drawn = picture(_GREY.resize(original) if stored is None and original else stored or _GREY, boxes, order, original)
    return drawn if stored is not None else replace(drawn, missing=True)


def _image(run: RunFolder, row: Mapping[str, Any], image: int) -> Image.Image | None:
    digests = row["image_digests"] or []
    digest = digests[image] if image < len(digests) else None
    if digest is None:
        return None
    path = run.image_path(digest)
    return ImageRef(path=str(path)).open() if path.is_file() else None
