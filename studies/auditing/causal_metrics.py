"""What the effects of the causal check mean: which image the answer hangs on, if any, and whether the focus is there.

It knows arrays and no models. No torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from probes.estimates import proportion
from probes.scores import causal_agreement, focus_all
from studies.auditing.choices import Choice, focus_of
from studies.auditing.entries import Entry, entry_of, find
from studies.auditing.evidence import BoolArray, Effects, Evidence, FloatArray, IntArray

MIN_EFFECT = 0.01
"""Nats: an image whose loss changes the answer's log-probability by no more does not matter; such an effect is rounding
noise."""

KNOCKOUT, MIXERS_TOO = "knockout", "knockout, mixers too"
"""Interventions that hide an image: from softmax attention alone, and from layers without it as well."""

RIGHT = "right"
RIGHT_ON_TARGET = "right, focus on target"
"""Values of `subset`: right answers, and those of them whose focus is the target."""


def causal_metrics(part: Evidence, choices: dict[str, Choice], where: Entry, layers: bool = True) -> Iterator[Entry]:
    """Entries of every intervention and window over the samples of `part`.

    A sample of which an image has no effect under an intervention, as one that is blank already when images are
    blanked, does not say which of its images matters most: it is left out there, and counted.

    Args:
        part: The samples; those that were not checked are passed over.
        choices: By row set, the rule that its focus is read by.
        where: What the samples have in common.
        layers: Whether single layers are scored too.
    """
    checked = [np.asarray(~np.isnan(effect.values).all(axis=1)) for effect in part.effects]
    part = replace(part, effects=tuple(_of_whole_samples(effect, part.n_images) for effect in part.effects))
    for effect, measured in zip(part.effects, checked, strict=True):
        named = {**where, "intervention": effect.intervention, "window": effect.window}
        aimed = part.where(measured & (part.target >= 0))
        yield from _no_image_matters(part, effect, measured, named)
        yield from _no_image_matters(
            part, effect, np.asarray(measured & (part.correct == 1)), {**named, "subset": RIGHT}
        )
        if len(aimed):
            yield _agreement(
                "target_has_largest_effect", aimed.target, _effects_on_candidates(aimed, effect), aimed, named
            )
        for rows, choice in choices.items():
            kept = part.where(measured & part.has_rows(rows))
            if len(kept):
                on_target = (
                    (kept.correct == 1) & (kept.target >= 0) & (focus_of(kept, rows, choice.rule) == kept.target)
                )
                ruled = {**named, "rows": rows, **choice.as_keys()}
                yield from _no_image_matters(kept, _same(kept, effect), on_target, {**ruled, "subset": RIGHT_ON_TARGET})
                yield from _agreements(kept, rows, choice, _effects_seen(kept, effect, rows), named)
                if layers:
                    yield from _agreements_by_layer(kept, rows, _effects_seen(kept, effect, rows), named)


def _of_whole_samples(effect: Effects, n_images: IntArray) -> Effects:
    """The effects, all NaN for a sample of which an image has none."""
    whole = (~np.isnan(effect.values)).sum(axis=1) == n_images
    return effect._replace(values=np.where(whole[:, None], effect.values, np.nan))


def _no_image_matters(part: Evidence, effect: Effects, chosen: BoolArray, where: Entry) -> Iterator[Entry]:
    """Of the chosen samples, how many change by at most `MIN_EFFECT`, up or down, whichever image is taken away."""
    chosen = chosen & ~np.isnan(effect.values).all(axis=1)
    if chosen.any():
        nothing = np.nanmax(np.abs(effect.values[chosen]), axis=1) <= MIN_EFFECT
        yield entry_of("no_image_matters", proportion(nothing, part.cluster[chosen]), where)


def right_without_image(entries: Sequence[Entry], split: str | None, **keys: Any) -> list[Entry]:
    """Entries that say how many right answers no single image matters to, over all layers: as a whole and by task."""
    return find(
        entries,
        "no_image_matters",
        **{"task": ..., "split": split, "subset": RIGHT, "window": "all", "rows": None, **keys},
    )


def _agreements(kept: Evidence, rows: str, choice: Choice, effects: FloatArray, where: Entry) -> Iterator[Entry]:
    focused = focus_of(kept, rows, choice.rule)
    ruled = {**where, "rows": rows, **choice.as_keys()}
    yield _agreement("causal_agreement", focused, effects, kept, ruled)
    off = (kept.correct == 1) & (kept.target >= 0) & (focused != kept.target)
    for subset, image in (("right, focus elsewhere", focused), ("right, focus elsewhere: target", kept.target)):
        usable = off & _within(effects, image)
        own = {**ruled, "subset": subset}
        yield _agreement("causal_agreement", image[usable], effects[usable], kept.where(usable), own)


def _agreements_by_layer(kept: Evidence, rows: str, effects: FloatArray, where: Entry) -> Iterator[Entry]:
    for index, layer in enumerate(kept.layers):
        single = focus_all(kept.factors[rows][:, [index]], "LND", 1)
        yield _agreement("causal_agreement", single, effects, kept, {**where, "rows": rows, "layer": layer})


def _agreement(name: str, image: IntArray, effects: FloatArray, kept: Evidence, where: Entry) -> Entry:
    told = ~np.isnan(effects).all(axis=1)
    found = causal_agreement(image[told], effects[told], kept.cluster[told], min_effect=MIN_EFFECT)
    return entry_of(name, found.estimate, {**where, "left_out": len(image) - found.estimate.n}, chance=found.chance)


def _same(kept: Evidence, effect: Effects) -> Effects:
    return next(
        entry for entry in kept.effects if (entry.intervention, entry.window) == (effect.intervention, effect.window)
    )


def _effects_on_candidates(kept: Evidence, effect: Effects) -> FloatArray:
    """The effects on those images that can be the target: not on the anchor of an image-to-image sample."""
    if "anchor" not in kept.factors:
        return np.asarray(_same(kept, effect).values)
    seen = ~np.isnan(kept.factors["anchor"]).all(axis=1) | ~kept.has_rows("anchor")[:, None]
    return np.where(seen, _same(kept, effect).values, np.nan)


def _effects_seen(kept: Evidence, effect: Effects, rows: str) -> FloatArray:
    """The effects on those images that the focus may fall on: the anchor is no candidate of its own rows."""
    seen = ~np.isnan(kept.factors[rows]).all(axis=1)
    return np.where(seen, _same(kept, effect).values, np.nan)


def _within(effects: FloatArray, image: IntArray) -> BoolArray:
    safe = np.clip(image, 0, effects.shape[1] - 1)
    return np.asarray(~np.isnan(effects[np.arange(len(effects)), safe]) & (image >= 0))
