"""The page about reward models: its examples run, and its table names every objective."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from rewardmodels.objectives import OBJECTIVES
from rewardmodels.preferences import write_preferences
from rewardmodels.records import Preference, Response
from studies.cli import VERBS, parse
from tests.probes.hooked import picture
from tests.rewardmodels.drawn import drawn_pairs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reward-models.md").read_text(encoding="utf-8")
ENTRIES = (ROOT / "studies" / "reward" / "entries.py").read_text(encoding="utf-8")


def test_the_table_names_every_objective() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(OBJECTIVES)


@pytest.mark.parametrize("line", re.findall(r"^sightcheck reward .*$", PAGE, re.MULTILINE))
def test_the_commands_are_valid(line: str) -> None:
    name, words = " ".join(line.split()[1:3]), shlex.split(line)[3:]
    verb = VERBS[name]
    assert parse(getattr(import_module(verb.module), verb.config), words, f"sightcheck {name}", line) is not None


def test_every_verb_and_part_of_the_table_is_told() -> None:
    assert all(f"sightcheck {name}" in PAGE for name in VERBS if name.startswith("reward "))
    sections = set(re.findall(r"Entry\(\s*\"([\w ]+)\"", ENTRIES)) | {"accuracy", "benchmark"}
    assert {name for name in sections if f"| {name} |" not in PAGE} == set()


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    picture(seed=0).save("picture.png")
    records = [
        Preference(pair.id, pair.prompt, (pair.chosen, Response(pair.rejected.text)), (0, 1)) for pair in drawn_pairs(4)
    ]
    write_preferences("pairs.jsonl", records)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert (tmp_path / "reward" / "model.safetensors").is_file()
    assert (tmp_path / "run").is_dir()
