"""Scores of RM-Bench's answers without their texts, as published evaluations give them: the style matrix. No torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from probes.files import digest_of_folder, without_nan, write_bytes, write_json
from probes.reading.sources import read_source
from rewardmodels.readers.rm_bench import STYLES, StyleScores, holds_scores_only, read_style_scores
from rewardmodels.style_scores import style_correlations
from rewardmodels.styles import style_matrix
from studies.reward.entries import Entry, print_table, style_entries
from studies.reward.evaluating import METRICS
from studies.reward.score_folder import SCORES, ScoreFolder
from studies.run_folder.manifest import Manifest

if TYPE_CHECKING:
    from studies.reward.evaluate import EvalConfig


def holds_style_scores(path: Path) -> bool:
    """Whether a file's first readable row has the scores of an RM-Bench item and none of its texts.

    Raises:
        InputError: As `read_source`.
    """
    first = next((row.values for row in read_source(path).rows if row.error is None), {})
    # Rows that name a record belong to preferences of --data.
    return holds_scores_only(first) and not {"id", "record"} & first.keys()


def evaluate_styles(config: "EvalConfig") -> int:
    """Write and print what scores by style tell; returns 0.

    Raises:
        InputError: As `read_style_scores`, or the folder cannot be written.
    """
    from studies.reward.eval_figures import save, styles
    from studies.reward.evaluate import STUDY

    assert config.scores is not None
    scores = read_style_scores(config.scores)
    found = style_matrix(scores.chosen, scores.rejected, ties=0.0)
    entries = [*style_entries(found), _correlation(scores, config.seed)]
    notes = _notes(scores)
    name = config.scores.name
    manifest = Manifest(
        config={"study": STUDY, "scores": str(config.scores)},
        batches=len(scores.chosen),
        seeds={"seed": config.seed},
        data_digest=digest_of_folder(config.scores),
    )
    with ScoreFolder.opened(config.out, manifest, resume=config.resume, overwrite=config.overwrite) as folder:
        write_bytes(config.out / SCORES, "".join(f"{json.dumps(row)}\n" for row in _rows(scores)).encode())
        content = {
            "scorer": name,
            "data": "RM-Bench, scores only",
            "notes": list(notes),
            "summary": [entry.to_dict("RM-Bench") for entry in entries],
            "styles": found.to_dict(),
        }
        write_json(config.out / METRICS, without_nan(content))
        save(config.out, "styles", styles(found))
        folder.finish()
    print_table(f"{name}: styles of {len(scores.chosen):,} RM-Bench items", entries, notes, {})
    print(f"Written: {config.out}")
    return 0


def _notes(scores: StyleScores) -> tuple[str, str]:
    unknown = "lengths and images" if scores.domains else "lengths, images and domains"
    by_domain = "; sightcheck reward published gives that" if scores.domains else ""
    return (
        f"The file holds scores and no texts: {unknown} are not known, so styles stand in for length.",
        f"Accuracies are over items; RM-Bench's own average is over domains{by_domain}. Ties count 0, as in RM-Bench.",
    )


def _correlation(scores: StyleScores, seed: int) -> Entry:
    """Correlation of score and style within items, right and wrong answers each among themselves."""
    found = style_correlations(scores.chosen, scores.rejected, seed=seed)
    note = "styles from plain to rich, within items"
    return Entry("length", "style correlation at fixed quality", found.within_prompt, "number", note)


def _rows(scores: StyleScores) -> list[dict[str, object]]:
    return [
        {"item": place, "side": side, "style": style, "score": float(table[place, at])}
        for place in range(len(scores.chosen))
        for side, table in (("chosen", scores.chosen), ("rejected", scores.rejected))
        for at, style in enumerate(STYLES)
    ]
