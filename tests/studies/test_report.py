"""The report: one file, no scripts, and whatever a model or a data file wrote is text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import Rectangle

from studies.auditing.overlays import overlay_of
from tests.studies.small_audit import Small, changed, read_rows

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \" onload='alert(3)' {{ 7 * 7 }} </dd></div>"


class Outline(HTMLParser):
    """Tags, addresses and ids of a page, and whether every tag that opens is closed."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


def test_one_file_that_needs_nothing_else(small: Small) -> None:
    page = Outline((small.out / "report.html").read_text())
    assert not page.open
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    sources = [image["src"] or "" for image in page.all("img")]
    assert len(sources) >= 8 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(image["alt"] for image in page.all("img"))
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", (small.out / "report.html").read_text())


def test_sections_and_their_links(small: Small) -> None:
    page = Outline((small.out / "report.html").read_text())
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    links = {(link["href"] or "").removeprefix("#") for link in page.all("a")}
    assert links == ids
    assert {"asked", "headline", "tasks", "layers", "wrong-reason", "image-to-image", "overlays"} <= ids
    assert {"positions", "trust", "errors", "manifest"} <= ids


def test_overlays_outline_the_gold_region_in_the_target(small: Small) -> None:
    sample = next(row for row in small.run.read("samples").to_pylist() if row["boxes"])
    figure = overlay_of(small.run, sample["sample_id"], layers=[0], focus=0)
    outlined = [
        any(
            isinstance(patch, Rectangle) and (patch.get_width(), patch.get_height()) == (16, 16)
            for patch in axes.patches
        )
        for axes in figure.axes[: sample["n_images"]]
    ]
    assert outlined == [image == sample["target"] for image in range(sample["n_images"])]


def test_numbers_are_those_of_the_metrics(small: Small) -> None:
    from studies.auditing.entries import find
    from studies.auditing.summary import percent

    text = (small.out / "report.html").read_text()
    entries = small.run.read_metrics()
    for name in ("attention_accuracy", "ivm_rate", "oracle_maximum"):
        assert percent(find(entries, name, rows="paper", split="test")[0], interval=False) in text
    for intervention in ("blank", "swap", "knockout"):
        keys: dict[str, Any] = {"intervention": intervention, "window": "all", "rows": "paper", "split": "test"}
        assert percent(find(entries, "causal_agreement", **keys)[0]) in text
    assert "the chance of" in text
    assert small.run.manifest.config_digest in text


def test_right_answers_without_an_image_are_told_by_task(small: Small) -> None:
    from studies.auditing.entries import find
    from studies.auditing.summary import percent

    text = (small.out / "report.html").read_text()
    table = text[text.index("Right, though no single image matters") :]
    entries = small.run.read_metrics()
    counted = small.run.query(
        """WITH most AS (SELECT sample_id, max(abs(effect)) AS effect FROM effects
                         WHERE intervention = 'blank' AND "window" = 'all' GROUP BY sample_id)
           SELECT task, avg(CAST(most.effect <= 0.01 AS INT)) AS share, count(*) AS n
           FROM samples JOIN most USING (sample_id) WHERE correct AND split = 'test' GROUP BY task"""
    ).to_pylist()
    assert counted
    for row in counted:
        keys = {"split": "test", "intervention": "blank", "window": "all", "subset": "right", "task": row["task"]}
        (entry,) = find(entries, "no_image_matters", **keys)
        assert entry["estimate"]["value"] == pytest.approx(row["share"]) and entry["estimate"]["n"] == row["n"]
        line = table[table.index(f"<td>{row['task']}</td>") :]
        assert percent(entry, interval=False) in line[: line.index("</tr>")]
    assert (small.out / "figures" / "without-images.png").is_file()


def test_hostile_text_is_escaped(small: Small, tmp_path: Path) -> None:
    rows = read_rows(small.data / "questions.jsonl")
    wanted: dict[str, dict[str, Any]] = {
        row["id"]: {"question": f"{HOSTILE} {row['question']}", "answer": HOSTILE, "task": f"task {HOSTILE}"}
        for row in rows
        if row["split"] == "test"
    }
    wanted["q11"] = {"images": [f"/nowhere/{HOSTILE.replace('/', '')}.png"] * 3, "id": f"q11 {HOSTILE}"}
    data = changed(small, tmp_path / "data", wanted)
    (tmp_path / "answers.json").write_text(json.dumps({row["id"]: HOSTILE for row in rows}))
    words = ("--answers", str(tmp_path / "answers.json"), "--maps", "all")
    assert small.audit(tmp_path / "run", *words, data=data, figures=True) == 1
    text = (tmp_path / "run" / "report.html").read_text()
    page = Outline(text)
    assert not page.open and not page.all("script")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
    assert all((image["src"] or "").startswith("data:image/png") for image in page.all("img"))
    assert "&lt;script&gt;alert(1)" in text and "{{ 7 * 7 }}" in text and "49" not in re.findall(r">\s*(49)\s*<", text)


def test_a_plain_run_says_what_was_not_asked(small: Small, tmp_path: Path) -> None:
    assert small.audit(tmp_path / "run", "--split", "test", "--maps", "none") == 0
    text = (tmp_path / "run" / "report.html").read_text()
    assert "see --position-study" in text and "see --causal" in text and "see --maps" in text
    assert "no evidence of what its answers depend on" in text
    assert "The focus rule could not be chosen on a dev split" in text and "M-LND" in text


def test_report_opens_in_every_run_without_right_answers(small: Small, tmp_path: Path) -> None:
    rows = {row["id"]: {"answer": "never said"} for row in read_rows(small.data / "questions.jsonl")}
    data = changed(small, tmp_path / "data", rows)
    assert small.audit(tmp_path / "run", "--causal", "2", data=data, figures=True) == 0
    assert "No answer was right" in (tmp_path / "run" / "report.html").read_text()
