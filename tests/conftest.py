"""Shared test set-up: no hub, seeded property tests, and no skip that the committed list does not name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

settings.register_profile(
    "sightcheck", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=40
)
settings.load_profile("sightcheck")

MAY_SKIP = Path(__file__).with_name("MAY_SKIP.md")
_unlisted_skips = pytest.StashKey[list[str]]()


def listed_skips(text: str) -> tuple[str, ...]:
    """The node ids (or their starts) in the table of ``MAY_SKIP.md``."""
    return tuple(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_unlisted_skips] = []
    allowed = listed_skips(MAY_SKIP.read_text())

    def note(report: pytest.TestReport | pytest.CollectReport) -> None:
        noted = config.stash[_unlisted_skips]
        unlisted = report.skipped and not hasattr(report, "wasxfail") and not report.nodeid.startswith(allowed)
        if unlisted and report.nodeid not in noted:
            noted.append(report.nodeid)

    class SkipWatch:
        @staticmethod
        def pytest_runtest_logreport(report: pytest.TestReport) -> None:
            note(report)

        @staticmethod
        def pytest_collectreport(report: pytest.CollectReport) -> None:
            """A module that skips as a whole, by `importorskip` at its top, never becomes a test."""
            note(report)

    config.pluginmanager.register(SkipWatch())


def pytest_sessionfinish(session: pytest.Session) -> None:
    on_a_worker = hasattr(session.config, "workerinput")
    if os.environ.get("CI") and not on_a_worker and session.config.stash[_unlisted_skips]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for nodeid in config.stash[_unlisted_skips]:
        terminalreporter.write_line(f"skipped, and not listed in tests/MAY_SKIP.md: {nodeid}", red=True)
