"""What the page may reach."""

from pathlib import Path

import pytest

from probes.inputs import InputError
from studies.explorer.guard import run_names, run_path


def _run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def test_runs_are_found_below_the_root_only(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    _run(root / "one")
    _run(root / "group" / "two")
    outside = _run(tmp_path / "outside")
    (root / "link").symlink_to(outside)
    assert set(run_names(root)) == {"one", "group/two"}
    assert run_names(tmp_path / "absent") == []


@pytest.mark.parametrize("name", ["../outside", "one/../../outside", "link", ".", "", "..", "\0", "one\0"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "runs"
    _run(root / "one")
    (root / "link").symlink_to(_run(tmp_path / "outside"))
    with pytest.raises(InputError):
        run_path(root, name)


def test_absolute_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="not below"):
        run_path(tmp_path / "runs", str(_run(tmp_path / "outside")))


def test_a_run_below_the_root_is_opened(tmp_path: Path) -> None:
    folder = _run(tmp_path / "runs" / "group" / "two")
    assert run_path(tmp_path / "runs", "group/two") == folder.resolve()


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"'empty' has no manifest\.json"):
        run_path(tmp_path, "empty")
