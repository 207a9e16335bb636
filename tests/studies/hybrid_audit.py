"""Tiny hybrid models on disk beside a tiny set of questions, for tests that audit them."""

from pathlib import Path

from tests.probes.mixers.hooked import hybrid
from tests.studies.small_audit import Small, make_answerable, save_questions


class Hybrid(Small):
    """A hybrid of a family of `tests.probes.mixers.hooked`, and questions most of which it answers right."""

    def __init__(self, root: Path, family: str, count: int = 8, dev: int = 3) -> None:
        self.model, self.data, self.out = root / "model", root / "data", root / "run"
        hooked = hybrid(family)
        hooked.model.save_pretrained(self.model)
        hooked.processor.save_pretrained(self.model)
        save_questions(self.data, count=count, dev=dev)
        make_answerable(self.model, self.data)
