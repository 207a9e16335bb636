"""Ranks instruments by how often their image is the one whose knock-out hurts the answer most.

Rule and layers of every instrument are chosen on the dev split and scored on the others. It knows arrays and entries,
no models. No torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from probes.estimates import mean, proportion
from probes.focusing import RULES, focus_shares
from probes.inputs import InputError
from probes.instruments.heads import LocalisationHeads, choose_heads, head_hits
from probes.instruments.linear_probes import LinearProbe, held_out_scores
from probes.instruments.names import HEADS, LENS, PROBE, RAW, ROWS, TRAINED
from probes.scores import chance_level
from studies.auditing.causal_metrics import MIN_EFFECT
from studies.auditing.choices import DEV
from studies.auditing.entries import Entry, entry_of, find
from studies.instruments.evidence import BoolArray, Evidence, FloatArray, IntArray

AGREEMENT, DIFFERENCE = "instrument_agreement", "difference_to_raw_factor"
HEAD_AGREEMENT, TARGET = "head_agreement", "target_has_largest_effect"
PROBE_ROWS = "predicting"
"""The probe reads the residual stream of the row that predicts the answer."""

TEST = "test"
"""What entries call the samples outside the dev split."""
SINGLE = "no image-to-image samples"
"""Value of `subset`: image-to-image answers hang on two images, and an instrument can name one."""


class Choice(NamedTuple):
    """A focus rule over some layers, given by their places on the layer axis."""

    rule: str
    layers: tuple[int, ...]

    def shares(self, scores: FloatArray) -> FloatArray:
        """(samples, layers, images) -> (samples, images): who the focus is on, ties shared."""
        return focus_shares(scores[:, list(self.layers)], self.rule, len(self.layers))


class Halves(NamedTuple):
    """An instrument's scores on the dev and on the test samples that count, (samples, layers, images) each."""

    dev: FloatArray
    test: FloatArray
    layers: tuple[int, ...]
    """True indices of the layer axis."""


@dataclass(frozen=True)
class Board:
    """The samples that count, and what they agree with."""

    dev: Evidence
    test: Evidence
    left_out: int
    """Test samples to which no image mattered."""

    @property
    def chance(self) -> float:
        """Of a blind focus on the test samples."""
        return chance_level(self.test.n_images)


def board(evidence: Evidence) -> Board:
    """Split the samples into dev and test, and leave out those to which no image matters.

    Raises:
        InputError: If either side has no sample left.
    """
    matters = np.nanmax(evidence.effects, axis=1) > MIN_EFFECT
    dev = evidence.split == DEV
    for side, name in ((dev, "the dev split"), (~dev, "the test samples")):
        if not (side & matters).any():
            raise InputError(
                f"{name} hold no sample to which an image matters: instruments are chosen on dev and scored on test; "
                "give data with both"
            )
    return Board(evidence.where(dev & matters), evidence.where(~dev & matters), int((~dev & ~matters).sum()))


def candidates(layers: int) -> list[Choice]:
    """Every single layer, and every rule over the last two and more; the simplest first.

    >>> [f"{choice.rule} {choice.layers}" for choice in candidates(2)]
    ['LND (0,)', 'LND (1,)', 'LND (0, 1)', 'M-LND (0, 1)', 'MC-LND (0, 1)']
    """
    single = [Choice("LND", (layer,)) for layer in range(layers)]
    deeper = [tuple(range(layers - last, layers)) for last in range(2, layers + 1)]
    return [*single, *(Choice(rule, chosen) for chosen in deeper for rule in RULES)]


def strongest(effects: FloatArray) -> FloatArray:
    """(samples, images): the image whose knock-out hurts most, as shares; equal effects share."""
    return focus_shares(effects[:, None], "LND", 1)


def hits(choice: Choice, scores: FloatArray, effects: FloatArray) -> FloatArray:
    """(samples,): how much of the focus is on the image of largest effect."""
    return np.asarray(np.nansum(choice.shares(scores) * strongest(effects), axis=1).clip(0, 1))


def choose(scores: FloatArray, effects: FloatArray) -> Choice:
    """The rule and layers of largest agreement on dev samples, the simplest among equals."""
    return max(candidates(scores.shape[1]), key=lambda choice: float(hits(choice, scores, effects).mean()))


def rank(evidence: Evidence) -> list[Entry]:
    """Entries of `metrics.json`: agreement of each instrument, difference to the raw factor, curves by layer and head.

    Raises:
        InputError: As `board`, and as the probes and heads.
    """
    ours = board(evidence)
    entries: list[Entry] = []
    hit: dict[tuple[str, str], FloatArray] = {}
    for key, halves, chosen, note in _instruments(ours):
        found = hits(chosen, halves.test, ours.test.effects)
        hit[key] = found
        where = {**_where(key), "rule": chosen.rule, "rule_source": f"dev split, {len(ours.dev)} samples"}
        where |= {"layers": [halves.layers[place] for place in chosen.layers], **note}
        entries += _over_parts(ours, found, where)
        if key[0] != HEADS:
            entries += _by_layer(ours, halves, _where(key))
    entries += [*_differences(ours, hit), *_targets(ours)]
    for best in [entry for entry in ranked(entries) if entry["instrument"] == HEADS]:
        entries += _by_head(ours, best)
    return entries


def _instruments(ours: Board) -> Iterator[tuple[tuple[str, str], Halves, Choice, dict[str, Any]]]:
    for key in ours.test.scores:
        layers = ours.test.depths if key[0] == LENS else ours.test.layers
        halves = Halves(ours.dev.scores[key], ours.test.scores[key], layers)
        yield key, halves, choose(halves.dev, ours.dev.effects), {}
    halves = _probe_halves(ours)
    yield (PROBE, PROBE_ROWS), halves, choose(halves.dev, ours.dev.effects), {}
    for rows in ROWS:
        heads = choose_heads(ours.dev.heads[rows], _strongest_image(ours.dev))
        named = [[ours.test.layers[layer], head] for layer, head in heads.heads]
        yield (HEADS, rows), _head_halves(ours, rows, heads), Choice("LND", (0,)), {"heads": named, "layers": None}


def _head_halves(ours: Board, rows: str, heads: LocalisationHeads) -> Halves:
    return Halves(heads.scores(ours.dev.heads[rows]), heads.scores(ours.test.heads[rows]), (-1,))


def _probe_halves(ours: Board) -> Halves:
    """Probes learn the target; they are ranked, as all are, by the image that matters."""
    dev, test = ours.dev, ours.test
    aimed = dev.target >= 0
    if not aimed.any():
        raise InputError("no dev sample names its target image, so no probe can learn it")
    learned = dev.where(aimed)
    probe = LinearProbe(learned.features, learned.target)
    held = _widened(probe.scores(dev.features, dev.n_images), dev.effects.shape[1])
    own = held_out_scores(learned.features, learned.target, learned.n_images, learned.cluster)
    held[aimed] = _widened(own, dev.effects.shape[1])
    scores = probe.scores(test.features, test.n_images)
    return Halves(held, _widened(scores, test.effects.shape[1]), test.depths)


def _widened(scores: FloatArray, images: int) -> FloatArray:
    table = np.full((*scores.shape[:2], images), np.nan)
    table[:, :, : scores.shape[2]] = scores
    return table


def _strongest_image(evidence: Evidence) -> IntArray:
    return np.asarray(np.nanargmax(evidence.effects, axis=1))


def _parts(ours: Board) -> dict[tuple[str | None, str | None], BoolArray]:
    """By task and subset, the test samples in it: all, those of one image, each task."""
    parts: dict[tuple[str | None, str | None], BoolArray] = {(None, None): np.ones(len(ours.test), dtype=bool)}
    single = ~ours.test.anchored
    if single.any() and not single.all():
        parts[None, SINGLE] = single
    return parts | {(str(task), None): ours.test.task == task for task in dict.fromkeys(ours.test.task.tolist())}


def _over_parts(ours: Board, found: FloatArray, where: Entry) -> Iterator[Entry]:
    for (task, subset), kept in _parts(ours).items():
        estimate = proportion(found[kept], ours.test.cluster[kept])
        more = {"left_out": ours.left_out} if task is None and subset is None else {}
        own = {**where, "task": task, "subset": subset}
        yield entry_of(AGREEMENT, estimate, own, chance=chance_level(ours.test.n_images[kept]), **more)


def _by_layer(ours: Board, halves: Halves, where: Entry) -> Iterator[Entry]:
    for place, layer in enumerate(halves.layers):
        found = hits(Choice("LND", (place,)), halves.test, ours.test.effects)
        estimate = proportion(found, ours.test.cluster)
        yield entry_of(AGREEMENT, estimate, {**where, "layer": layer}, chance=ours.chance)


def _differences(ours: Board, hit: dict[tuple[str, str], FloatArray]) -> Iterator[Entry]:
    for (name, rows), found in hit.items():
        against = rows if rows in ROWS else PROBE_ROWS
        for (task, subset), kept in _parts(ours).items():
            if name != RAW and task is None:
                gaps = (found - hit[RAW, against])[kept]
                estimate = mean(gaps, ours.test.cluster[kept], bounds=(-1.0, 1.0))
                yield entry_of(DIFFERENCE, estimate, {**_where((name, rows)), "subset": subset}, against=against)


def _targets(ours: Board) -> Iterator[Entry]:
    """How often the image of largest effect is the target: no instrument that finds the target can agree more often."""
    for (task, subset), kept in _parts(ours).items():
        aimed = ours.test.where(kept & (ours.test.target >= 0))
        if not len(aimed):
            continue
        shares = strongest(aimed.effects)[np.arange(len(aimed)), aimed.target].clip(0, 1)
        where = {"instrument": None, "split": TEST, "task": task, "subset": subset}
        yield entry_of(TARGET, proportion(shares, aimed.cluster), where, chance=chance_level(aimed.n_images))


def _by_head(ours: Board, chosen: Entry) -> Iterator[Entry]:
    rows = chosen["rows"]
    dev = head_hits(ours.dev.heads[rows], _strongest_image(ours.dev)).mean(axis=0)
    found = head_hits(ours.test.heads[rows], _strongest_image(ours.test))
    for place, layer in enumerate(ours.test.layers):
        for head in range(found.shape[2]):
            estimate = proportion(found[:, place, head], ours.test.cluster)
            where = {"instrument": RAW, "rows": rows, "split": TEST, "layer": layer, "head": head}
            more = {"on_dev": float(dev[place, head]), "chosen": [layer, head] in chosen["heads"]}
            yield entry_of(HEAD_AGREEMENT, estimate, where, chance=ours.chance, **more)


def _where(key: tuple[str, str]) -> Entry:
    name, rows = key
    return {"instrument": name, "rows": rows, "trained": name in TRAINED, "split": TEST}


def ranked(entries: Sequence[Entry], subset: str | None = None) -> list[Entry]:
    """The entries of whole instruments over all tasks, the largest agreement first; of a subset if one is named."""
    whole = [entry for entry in find(entries, AGREEMENT, split=TEST, subset=subset) if entry["rule"] is not None]
    return sorted(whole, key=lambda entry: -entry["estimate"]["value"])
