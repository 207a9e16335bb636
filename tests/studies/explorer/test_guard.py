"""What the page may reach."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError
from studies.explorer.guard import LocalOnly, Message, run_names, run_path


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


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ([(b"host", b"localhost:7860")], True),
        ([(b"host", b"192.168.0.9:7860")], True),
        ([(b"host", b"evil.example:7860")], False),
        ([(b"host", b"localhost"), (b"host", b"evil.example")], False),
        ([], False),
    ],
)
def test_only_own_hosts_are_served(kind: str, headers: list[tuple[bytes, bytes]], served: bool) -> None:
    reached: list[str] = []
    sent: list[Message] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "path": "/", "headers": headers}
    asyncio.run(LocalOnly(behind, bound="192.168.0.9")(scope, receive, send))
    assert bool(reached) is served
    assert served or sent[0]["type"] in ("http.response.start", "websocket.close")
