"""Attention accuracy by layer in the colours of the layers' kinds, from a finalised run. No torch.

It chooses what is drawn and writes the captions, as `figures` does; how it is drawn is `viz.papers.accuracy_by_kind`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.auditing.entries import Entry, find
from studies.auditing.figures import Drawn, Figure, chance_of, numbers_of
from studies.auditing.finalise import Final
from studies.auditing.kinds import ATTENTION, label_of, measures_of, named_kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

QUANTITIES = (
    ("attention_accuracy", "attention accuracy", "among right answers"),
    ("attention_overall", "P(focus = target)", "over all answers"),
)
"""Metric, name of the axis, and whose focus it is; the second is drawn where no answer is right."""


def draw_kinds(config: Mapping[str, Any], final: Final, split: str | None) -> Drawn:
    """Draw one figure for each row set of text; none where attention factors are the only measure.

    Args:
        config: The manifest's config, which says what every layer is made of.
        final: The run.
        split: The split of the headline.
    """
    if not final.by_kind:
        return
    parts = layer_parts(config, final)
    for rows in ("paper", "predicting"):
        for name, quantity, whose in QUANTITIES:
            series = {
                (measure, kind): [
                    entry
                    for entry in find(
                        final.entries, name, layer=..., split=split, rows=rows, **named_kind(measure, kind)
                    )
                    if entry["layer"] is not None and entry["estimate"]["value"] is not None
                ]
                for measure, kind in measures_of(final.entries)
            }
            series = {key: found for key, found in series.items() if found}
            if series:
                caption = (
                    f"How often each single layer's largest factor is on the target image {whose}, rows {rows}, split "
                    f"{split}, in the colour of the layer's kind; below it, what every layer is made of. Hidden "
                    "attention has other units than softmax attention: only how often it points at the target "
                    "compares. Bars are 95 % intervals clustered by base sample; dashed lines are chance."
                )
                yield Figure("kinds", f"figures/kinds-{rows}.png", caption), _draw(series, parts, quantity)
                break


def layer_parts(config: Mapping[str, Any], final: Final) -> list[list[str]]:
    """What every layer of the decoder is made of, from the first one to the last that is known; where the manifest does
    not say, what was measured there.
    """
    told = config.get("mixers", {}).get("layer_kinds", {})
    parts = {int(layer): list(kinds) for layer, kinds in told.items()}
    measured = [
        (ATTENTION, final.evidence.layers),
        *((each.layer_kind, each.evidence.layers) for each in final.by_kind),
    ]
    for kind, layers in measured:
        for layer in layers:
            own = parts.setdefault(layer, [])
            if kind not in own:
                own.append(kind)
    return [parts.get(layer, []) for layer in range(max(parts) + 1)]


def _draw(
    series: Mapping[tuple[str | None, str], Sequence[Entry]], parts: Sequence[Sequence[str]], quantity: str
) -> "Drawing":
    from viz import papers

    table = np.full((len(series), len(parts), 3), np.nan)
    for index, found in enumerate(series.values()):
        table[index, [entry["layer"] for entry in found]] = numbers_of(found)
    return papers.accuracy_by_kind(
        range(len(parts)),
        table[..., 0],
        table[..., 1],
        table[..., 2],
        [chance_of(found[0]) for found in series.values()],
        [label_of(*key) for key in series],
        kinds=[kind for _, kind in series],
        parts=parts,
        quantity=quantity,
    )
