"""A served explorer over a tiny model, a small benchmark and a made-up run, shared by the tests of the page."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

from tests.probes.hooked import hooked
from tests.rewardmodels.small import reward_model
from tests.studies.explorer.run_factory import make_image, make_run

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
SAMPLES = 40


class Served(NamedTuple):
    """The page's address, and the folder that holds its runs."""

    address: str
    home: Path


def save_benchmark(folder: Path, questions: int = 4) -> Path:
    """Questions over two to four small pictures, in the project's own format."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(questions):
        count = 2 + index % 3
        names = [f"{index}-{image}.png" for image in range(count)]
        for image, name in enumerate(names):
            make_image(index + image).save(folder / name)
        marks = " ".join(f"{image + 1} <image>" for image in range(count))
        rows.append(
            {
                "id": f"q{index}",
                "question": f"{marks} Which image shows the red ball?",
                "images": names,
                "answer": "ball",
                "target": index % count,
                "task": ("content", "needle")[index % 2],
                "split": "test",
            }
        )
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """Serve the explorer from a thread, and stop it at the end."""
    from studies.explorer.app import build, serve

    make_run(home / "runs" / "first", SAMPLES)
    (home / "secret.txt").write_text("nobody may read this")
    blocks = build(hooked("llava"), home / "runs", save_benchmark(home / "benchmark"), reward=reward_model("llava"))
    try:
        yield Served(serve(blocks, free_port(), block=False).rstrip("/"), home)
    finally:
        blocks.close(verbose=False)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tab:
    """A page that notes requests to other hosts, script errors and console errors."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.outside: list[str] = []
        self.errors: list[str] = []
        local = (address, "data:", "blob:", address.replace("http", "ws", 1))
        page.on("request", lambda request: None if request.url.startswith(local) else self.outside.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.goto(address)

    def shot(self, name: str) -> None:
        """Keep a screenshot where SIGHTCHECK_SHOTS names a folder."""
        folder = os.environ.get("SIGHTCHECK_SHOTS")
        if folder:
            self.page.wait_for_timeout(1200)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    root = "document.documentElement"
    return int(page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))
