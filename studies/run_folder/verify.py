"""Whether a run folder still holds what was written into it.

Knows the run folder's public reading side. No torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import counted
from probes.files import digest_of_file
from studies.run_folder.parts import Parts

if TYPE_CHECKING:
    from studies.runs import RunFolder


@dataclass(frozen=True)
class Verification:
    """What a check of a run folder found; ``ok`` if nothing is wrong."""

    problems: tuple[str, ...]
    """One line each: a file lost or changed, a batch missing from a finished run, a sample written twice."""
    samples: int
    images_missing: int
    """Images that samples name and the folder does not hold; a run may choose to keep only some."""
    leftovers: int
    """Files that no marker vouches for; readers ignore them and a resumed run removes them."""

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return f"{counted(self.samples, 'sample')}, nothing wrong"
        counts = f"{counted(self.samples, 'sample')}, {counted(len(self.problems), 'problem')}"
        return f"{counts}:\n" + "\n".join(f"- {p}" for p in self.problems)


def verify(run: "RunFolder") -> Verification:
    """Read every file of a run once and compare it with what was noted when it was written."""
    parts = Parts(run.path, run.manifest.batches)
    problems = [problem for path, note in parts.noted() if (problem := _check(path, note["sha256"], run.path))]
    missing = run.missing_batches()
    if run.manifest.finished and missing:
        problems.append(f"the run is marked as finished, but {counted(len(missing), 'batch')} missing")
    samples = images = 0
    if not problems:
        samples = run.count("samples")
        problems += _doubled(run)
        images = _lost_images(run)
    return Verification(tuple(problems), samples, images, len(parts.leftovers()))


def _check(path: Path, digest: str, root: Path) -> str | None:
    name = path.relative_to(root)
    if not path.is_file():
        return f"{name} is lost"
    return None if digest_of_file(path) == digest else f"{name} is not what was written"


def _doubled(run: "RunFolder") -> list[str]:
    rows = run.query("SELECT sample_id, count(*) AS n FROM samples GROUP BY sample_id HAVING n > 1 ORDER BY sample_id")
    return [f"sample {row['sample_id']} was written {row['n']} times" for row in rows.to_pylist()]


def _lost_images(run: "RunFolder") -> int:
    rows = run.query("SELECT DISTINCT unnest(image_digests) AS digest FROM samples")
    digests = rows.column("digest").to_pylist()
    return sum(digest is not None and not run.image_path(digest).is_file() for digest in digests)
