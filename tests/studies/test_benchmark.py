"""The bundled benchmark: what is drawn, what is asked, and what was committed."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studies.benchmark.questions import (
    HINT_RIGHT,
    MOST_IMAGES,
    TASKS,
    Draft,
    Pool,
    PoolEntry,
    compose,
    image_count,
    named,
)
from studies.benchmark.rendering import CONCEPTS, PIXELS, Concept, draw
from studies.benchmark.sources import NEEDLES
from studies.bundled import BUNDLED_DATA
from tests.studies.drawn import drawn_sources

SOURCES = drawn_sources()


def make_pool() -> Pool:
    entries = [PoolEntry(f"{c.kind}-{c.name}-{i}", c) for c in CONCEPTS for i in range(2)]
    hosts = [c for c in CONCEPTS if c.kind == "emoji"]
    entries += [
        PoolEntry(f"{needle}-{i}", hosts[i], needle, (0.0, 0.0, 20.0, 20.0)) for needle in NEEDLES for i in range(3)
    ]
    return Pool(entries)


POOL = make_pool()
BY_FILE = {entry.file: entry for group in (*POOL.by_concept.values(), *POOL.by_needle.values()) for entry in group}


def drafts(task: str, count: int = 60) -> list[Draft]:
    rng = np.random.default_rng(len(task))
    return [compose(task, POOL, image_count(task, rng), rng) for _ in range(count)]


def shown(draft: Draft) -> list[Concept]:
    return [BY_FILE[file].concept for file in draft.files]


@pytest.mark.parametrize("task", TASKS)
def test_every_question_numbers_its_images_and_points_at_one(task: str) -> None:
    for draft in drafts(task):
        assert draft.question.count("<image>") == len(draft.files) <= MOST_IMAGES
        assert draft.question.startswith("1 <image> 2 <image>")
        assert 0 <= draft.target < len(draft.files)
        assert len(set(draft.files)) == len(draft.files)


def test_content_answers_name_the_target() -> None:
    for draft in drafts("content"):
        assert draft.answer == shown(draft)[draft.target].name
        assert f"image {draft.target + 1}?" in draft.question


def test_caption_names_one_image_only() -> None:
    for draft in drafts("caption"):
        holding = [i for i, concept in enumerate(shown(draft)) if named(concept) in draft.question]
        assert holding == [draft.target]
        assert draft.answer == str(draft.target + 1)


def test_needle_hides_in_the_target_only() -> None:
    for draft in drafts("needle"):
        hidden = [BY_FILE[file].needle for file in draft.files]
        assert [i for i, needle in enumerate(hidden) if f" {needle}?" in draft.question] == [draft.target]
        assert draft.box == BY_FILE[draft.files[draft.target]].needle_box


def test_comparison_target_is_the_largest_digit() -> None:
    for draft in drafts("comparison"):
        digits = [int(concept.name) for concept in shown(draft)]
        assert digits.index(max(digits)) == draft.target
        assert digits.count(max(digits)) == 1


def test_retrieval_matches_the_last_image_by_another_rendering() -> None:
    for draft in drafts("retrieval"):
        concepts = shown(draft)
        matches = [i for i, concept in enumerate(concepts[:-1]) if concept == concepts[-1]]
        assert matches == [draft.target]
        assert draft.files[draft.target] != draft.files[-1]
        assert draft.last_fixed


def test_giveaway_hint_is_mostly_right_and_the_answer_always_is() -> None:
    made = drafts("giveaway", 600)
    for draft in made:
        assert draft.answer == shown(draft)[draft.target].name
        assert (f"Someone says {draft.answer}." in draft.question) == draft.hint_right
    share = float(np.mean([bool(draft.hint_right) for draft in made]))
    assert abs(share - HINT_RIGHT) < 0.025


def test_moving_the_target_moves_question_and_answer() -> None:
    draft = Draft("content", ("a", "b", "c"), 2, "What is in image {position}?", "cat")
    moved = Draft("content", ("c", "a", "b"), 0, draft.question_template, draft.answer_template)
    assert draft.question.endswith("image 3?")
    assert moved.question.endswith("image 1?")
    assert moved.answer == "cat"


def test_compose_refuses_what_it_cannot_make() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no task is called 'poem'"):
        compose("poem", POOL, 4, rng)
    with pytest.raises(ValueError, match="retrieval takes 3 to 8 images, not 2"):
        compose("retrieval", POOL, 2, rng)


def test_a_needle_changes_only_the_pixels_in_its_box() -> None:
    for seed in range(20):
        with_needle = draw(CONCEPTS[seed], SOURCES, np.random.default_rng(seed), "key")
        without = draw(CONCEPTS[seed], SOURCES, np.random.default_rng(seed))
        assert with_needle.needle_box is not None
        left, top, right, bottom = (int(edge) for edge in with_needle.needle_box)
        assert 0 <= left < right <= PIXELS
        assert 0 <= top < bottom <= PIXELS
        changed = np.argwhere((with_needle.pixels != without.pixels).any(-1))
        assert len(changed) > 0
        assert (changed >= (top, left)).all()
        assert (changed < (bottom, right)).all()


def test_draw_refuses_an_unknown_needle() -> None:
    with pytest.raises(ValueError, match="no small thing is called 'haystack'"):
        draw(CONCEPTS[0], SOURCES, np.random.default_rng(0), "haystack")


@pytest.fixture(scope="module")
def bundled() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (BUNDLED_DATA / "questions.jsonl").read_text().splitlines()]


def test_bundled_benchmark_is_large_enough(bundled: list[dict[str, Any]]) -> None:
    counts = Counter(row["split"] for row in bundled)
    assert counts["dev"] >= 500
    assert counts["test"] >= 2000
    assert {row["task"] for row in bundled} == set(TASKS)
    assert len({row["id"] for row in bundled}) == len(bundled)


def test_bundled_splits_share_no_image(bundled: list[dict[str, Any]]) -> None:
    with zipfile.ZipFile(BUNDLED_DATA / "images.zip") as archive:
        pixels = {}
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                assert image.size == (PIXELS, PIXELS)
                pixels[name] = image.convert("RGB").tobytes()
    used = {file.removeprefix("images.zip/") for row in bundled for file in row["images"]}
    assert used <= set(pixels)
    dev = {data for name, data in pixels.items() if name.startswith("dev/")}
    test = {data for name, data in pixels.items() if name.startswith("test/")}
    assert not dev & test
    for row in bundled:
        assert all(file.startswith(f"images.zip/{row['split']}/") for file in row["images"])


def test_bundled_targets_are_spread_over_the_positions(bundled: list[dict[str, Any]]) -> None:
    for task in TASKS:
        rows = [row for row in bundled if row["task"] == task and row["split"] == "test"]
        last_place = [len(row["images"]) - (2 if task == "retrieval" else 1) for row in rows]
        place = [row["target"] / last for row, last in zip(rows, last_place, strict=True)]
        assert abs(float(np.mean(place)) - 0.5) < 0.08


def test_the_data_card_counts_the_right_hints(bundled: list[dict[str, Any]]) -> None:
    hints = [row["meta"]["hint_right"] for row in bundled if row["task"] == "giveaway"]
    card = " ".join((BUNDLED_DATA / "CARD.md").read_text().split())
    assert f"the hint is right in {100 * np.mean(hints):.1f} % of questions ({sum(hints)} of {len(hints)})" in card
