"""One scorer questioned on one set of preferences: scores kept, numbers worked out, figures drawn.

It knows the order of the work and the files; every number is computed in `rewardmodels`. Importing it loads no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.files import without_nan, write_bytes, write_json
from probes.inputs import InputError
from rewardmodels.pair_scores import pair_columns, pair_sides, placed_pairs
from rewardmodels.preferences import Preferences
from rewardmodels.questioning import TEXT
from rewardmodels.reports import Report, reward_report
from rewardmodels.score_files import read_scores
from rewardmodels.scorers import is_pair_judge
from rewardmodels.scores import AS_IS, Scores, count_reasons
from studies.reward.asking import VIEW_NAMES, Asked
from studies.reward.entries import Entry, best_of_n_entries, entries_of
from studies.reward.score_folder import SCORES, SHARDS, collect, left_out

if TYPE_CHECKING:
    from studies.best_of_n import BundledBestOfN
    from studies.reward.evaluate import EvalConfig

METRICS, ATTENTION = "metrics.json", "attention.jsonl"
BLANK = VIEW_NAMES["blank"]


class Evaluated(NamedTuple):
    """What was found out.

    Attributes:
        data: The set's name.
        report: Numbers from scores.
        entries: All numbers, named.
        notes: What was not asked and why, and what numbers rest on.
        left_out: What could not be used, by kind.
        scores: Of the scorer.
    """

    data: str
    report: Report
    entries: list[Entry]
    notes: list[str]
    left_out: dict[str, int]
    scores: Scores


class _Text(NamedTuple):
    """The ranking by the text alone, whose it is, and why records are not in it, counted."""

    scores: Scores | None
    whose: str
    left_out: Mapping[str, int] = {}


def evaluate(
    asked: Asked, proxy: Asked | None, records: Preferences, config: "EvalConfig", folder: Path, data: str
) -> Evaluated:
    """Ask everything, and write scores, numbers and figures.

    Args:
        asked: The scorer.
        proxy: The text-only proxy, where it is a model.
        records: What is scored.
        config: The options.
        folder: What is written into; scores that are there already stay.
        data: The set's name.

    Raises:
        InputError: As `collect` and `reward_report`, or no response can be attended to.
    """
    views = _views(asked, records, config)
    scores = collect(asked, records, config, folder / SHARDS / "scorer", (AS_IS, *views))
    scores.write(folder / SCORES)
    text = _text_alone(proxy, records, scores, config, folder)
    report = reward_report(records, scores, text.scores, seed=config.seed)
    entries = entries_of(report, text.whose)
    notes = _notes(asked, records, report, config, text)
    extra: dict[str, Any] = {}
    if config.attention:
        entries += _attention(asked, records, config, folder)
    if config.best_of_n:
        found = _best_of_n(asked, config, folder)
        extra["best_of_n"] = found.to_dict()
        entries += best_of_n_entries(found.pools.curve)
    _draw(records, scores, text, report, folder)
    missing = left_out(scores, records)
    content = {
        "scorer": asked.name,
        "model_digest": asked.digest,
        "data": data,
        "format": report.data,
        "left_out": missing,
        "notes": notes,
        "summary": [entry.to_dict(data) for entry in entries],
        "report": {key: value for key, value in report.to_dict().items() if key != "data"},
        **extra,
    }
    write_json(folder / METRICS, without_nan(content))
    return Evaluated(data, report, entries, notes, missing, scores)


def _views(asked: Asked, records: Preferences, config: "EvalConfig") -> tuple[str, ...]:
    """The views that can be asked for: none of a file, and none where there is nothing to see."""
    if asked.scorer is None or config.ruler is not None or not any(record.images for record in records):
        return ()
    return tuple(VIEW_NAMES[view] for view in config.views)


def _text_alone(proxy: Asked | None, records: Preferences, scores: Scores, config: "EvalConfig", folder: Path) -> _Text:
    if config.proxy_scores is not None:
        name = config.proxy_scores.name
        found = read_scores(config.proxy_scores, records, skip=config.on_bad == "skip", scorer=name)
        return _Text(found, f"scores of {name}")
    if proxy is not None:
        seeing = any(record.images for record in records)
        assert proxy.reward is not None
        view = AS_IS if not seeing else VIEW_NAMES[config.proxy_sees] if proxy.reward.sees else TEXT
        found = collect(proxy, records, config, folder / SHARDS / "proxy", (view,), "scoring by the proxy")
        shown = {AS_IS: "no image there", TEXT: "text alone"}.get(view, f"images {view}")
        missing = count_reasons(record.error for record in found.left_out.get(view, ()))
        return _Text(_under(found, view), f"the proxy {proxy.name}, {shown}", missing)
    if BLANK in scores.views:
        return _Text(_under(scores, BLANK), "no proxy given, so the model itself on blank images")
    return _Text(None, "")


def _under(scores: Scores, view: str) -> Scores:
    """The scores under one view, as if it were the only one."""
    rows = tuple(replace(row, view=AS_IS) for row in scores.rows if row.view == view)
    return replace(scores, rows=rows, left_out={})


def _notes(asked: Asked, records: Preferences, report: Report, config: "EvalConfig", text: _Text) -> list[str]:
    notes = []
    if not any(record.images for record in records):
        notes.append("No record has an image, so no image was blanked or shuffled.")
    elif not report.views:
        why = "scores from a file cannot be asked again" if asked.scorer is None else "no view was asked for"
        why = "a ruler sees no image" if config.ruler is not None else why
        notes.append(f"Images were neither blanked nor shuffled: {why}.")
    for view, found in report.views.items():
        for reason, count in found.left_out.items():
            notes.append(f"{count:,} records cannot be shown {view}: {reason}.")
    for reason, count in text.left_out.items():
        notes.append(f"{count:,} records are not in the shortcut-failure degradation, as the proxy's view: {reason}.")
    if asked.scorer is None or not is_pair_judge(asked.scorer):
        notes.append("Position swap does not apply: answers are scored one at a time.")
    if text.scores is None:
        notes.append("No shortcut-failure degradation: it needs --proxy-model, --proxy-scores, or blank images.")
    return notes


def _attention(asked: Asked, records: Preferences, config: "EvalConfig", folder: Path) -> list[Entry]:
    from studies.reward.eval_figures import draw_attention
    from studies.reward.looking import look

    if asked.reward is None:
        raise InputError("--attention reads the scoring token of a reward model: give --model")
    looked = look(asked.reward, records.pairs(), config.attention, config.batch_size, config.seed)
    write_bytes(folder / ATTENTION, "".join(f"{json.dumps(row)}\n" for row in looked.rows).encode())
    draw_attention(folder, looked)
    return looked.entries()


def _best_of_n(asked: Asked, config: "EvalConfig", folder: Path) -> "BundledBestOfN":
    from studies.auditing.progress import Counter
    from studies.best_of_n import Sampling, bundled_best_of_n
    from studies.reward.eval_figures import draw_best_of_n

    if asked.scorer is None or is_pair_judge(asked.scorer):
        raise InputError("--best-of-n needs a scorer of single answers that can be asked: give --model, or --ruler")
    scorer: Any = asked.scorer
    with Counter("sampling answers to pick from", config.best_of_n) as counter:
        sampling = Sampling(questions=config.best_of_n, seed=config.seed)
        found = bundled_best_of_n(scorer, sampling, lambda: counter.advance(1))
    draw_best_of_n(folder, found.pools.curve)
    return found


def _draw(records: Preferences, scores: Scores, text: _Text, report: Report, folder: Path) -> None:
    from studies.reward.eval_figures import draw_report, draw_shortcut

    pairs = placed_pairs(records)
    sides = pair_sides(pairs, scores)
    by_text = {} if text.scores is None else pair_sides(pairs, text.scores)
    scored = [each for each in pairs if each.pair.id in sides]
    draw_report(folder, report, pair_columns(scored, sides))
    both = [each for each in scored if each.pair.id in by_text]
    if both and report.degradation is not None:
        other = pair_columns(both, by_text)
        right = np.asarray(other.chosen > other.rejected)
        draw_shortcut(folder, report.degradation, pair_columns(both, sides), right, text.whose)
