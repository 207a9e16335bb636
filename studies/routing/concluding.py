"""The end of a routing study: measures, figures, report, and the short table. It reads what was recorded. No torch."""

from typing import TYPE_CHECKING

from studies.auditing.progress import Counter
from studies.routing.evidence import read_evidence
from studies.routing.measures import measures, most_shuffles
from studies.routing.preparing import Prepared
from studies.routing.report import write_report
from studies.routing.shards import MEASURES, shard_bytes
from studies.routing.table import print_table

if TYPE_CHECKING:
    from studies.runs import RunFolder


def conclude(prepared: Prepared, folder: "RunFolder") -> dict[str, str]:
    """Measure, draw, write the report and print the table; returns the questions that failed, with their reasons.

    Raises:
        InputError: If no question went well.
    """
    from studies.auditing.figures import png
    from studies.routing.figures import figures
    from viz import papers

    config = prepared.config
    folder.compact()
    evidence = read_evidence(folder, prepared.plan, prepared.checkpoints)
    with Counter("shuffling labels", most_shuffles(evidence, config.permutations), unit="shuffles") as counter:
        found = measures(evidence, config.permutations, config.seed, lambda: counter.advance(1))
    folder.write_metrics(found.entries)
    folder.write_file(MEASURES, shard_bytes(found.arrays))
    drawn = []
    for figure in figures(found.arrays, papers):
        content = png(figure.drawing)
        folder.write_file(f"figures/{figure.name}.png", content)
        drawn.append((figure.caption, content))
    write_report(folder, found, drawn, evidence.failed)
    folder.finish()
    print_table(found, config.model)
    return evidence.failed
