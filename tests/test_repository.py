"""What the repository promises its maintainers: no silent skip, and a clean-up that leaves results alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WHOLE_MODULE = 'import pytest\npytest.importorskip("no_such_module")\ndef test_it(): pass\n'
ONE_TEST = 'import pytest\ndef test_it(): pytest.skip("no reason")\n'
MARKED = 'import pytest\n@pytest.mark.skipif(True, reason="no reason")\ndef test_it(): pass\n'
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n"


def run_pytest(folder: Path, text: str, listed: str = "", ci: str = "1", *words: str) -> tuple[int, str]:
    """Run one passing test and those of `text` under a copy of our own guard."""
    (folder / "test_some.py").write_text(text)
    (folder / "test_other.py").write_text("def test_passes(): pass\n")
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "MAY_SKIP.md").write_text(f"| test | skips without |\n| --- | --- |\n{listed}\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env={**environment, "CI": ci},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("words", [(), ("-n", "1")])
@pytest.mark.parametrize("text", [WHOLE_MODULE, ONE_TEST, MARKED])
def test_a_skip_that_is_not_listed_fails_the_run(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    status, shown = run_pytest(tmp_path, text, "", "1", *words)
    assert status == 1
    assert shown.count("skipped, and not listed in tests/MAY_SKIP.md: test_some.py") == 1


def test_listed_skips_and_expected_failures_pass(tmp_path: Path) -> None:
    for text, listed in ((WHOLE_MODULE, "| `test_some.py` | a module |"), (EXPECTED_FAILURE, "")):
        status, shown = run_pytest(tmp_path, text, listed)
        assert status == 0, shown


def test_outside_continuous_integration_a_skip_is_named_only(tmp_path: Path) -> None:
    status, shown = run_pytest(tmp_path, WHOLE_MODULE, ci="")
    assert status == 0 and "not listed" in shown


def test_continuous_integration_sets_what_the_guard_looks_for() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines.index("export CI=1") < lines.index("make test")


def test_cleaning_up_keeps_results(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / ".mypy_cache").mkdir()
    subprocess.run(["make", "-f", str(ROOT / "Makefile"), "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
