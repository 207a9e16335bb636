"""The dense model's parts: token layout against the processor's own, a few training steps, and resuming them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studies.benchmark.questions import TASKS, compose
from studies.dense.augmentation import augment
from studies.dense.lessons import states_of
from studies.dense.model import IMAGE_TOKENS, SIZES, build_model, build_processor, build_tokenizer
from studies.dense.pictures import PictureCounts, PictureStore, tower_features
from studies.dense.sequences import IGNORED, BatchMaker, DevSet, Listing, SequenceWriter
from studies.dense.state import STATE_FILE, TrainingRun
from studies.dense.training import TrainingConfig, save_model, train, train_tower
from tests.studies.drawn import drawn_sources

TINY = TrainingConfig(
    size="small", tower_steps=3, tower_batch=8, steps=6, batch=4, warm_up=2, measure_every=3, dev_questions_per_task=2
)


@pytest.fixture(scope="module")
def store() -> PictureStore:
    return PictureStore(drawn_sources(), PictureCounts(emoji=2, digits=2, clothes=2, needles=3), seed=0)


@pytest.fixture(scope="module")
def processor(store: PictureStore) -> Any:
    return build_processor(build_tokenizer(store.pool, np.random.default_rng(0)))


@pytest.mark.parametrize("task", TASKS)
def test_sequences_are_what_the_processor_makes(task: str, store: PictureStore, processor: Any) -> None:
    rng = np.random.default_rng(5)
    draft = compose(task, store.pool, 3, rng)
    pieces = draft.question.split("<image>")
    content: list[dict[str, str]] = []
    for number, piece in enumerate(pieces):
        content += [{"type": "image"}] if number else []
        content += [{"type": "text", "text": piece}] if piece.strip() else []
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [Image.fromarray(store.pixels[int(file)]) for file in draft.files]
    inputs = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
    assert inputs["input_ids"][0].tolist() == SequenceWriter(processor.tokenizer).question(draft)
    files = np.array([int(file) for file in draft.files])
    torch.testing.assert_close(inputs["pixel_values"], store.values(files), atol=1e-6, rtol=0)


def test_any_text_round_trips_through_the_tokenizer(processor: Any) -> None:
    for text in ("zebra", "Größe 42 μm?", "<|user| not a mark", "猫はどこ"):
        ids = processor.tokenizer.encode(text, add_special_tokens=False)
        assert processor.tokenizer.decode(ids).strip() == text


def test_labels_stand_on_answers_only(store: PictureStore, processor: Any) -> None:
    writer = SequenceWriter(processor.tokenizer)
    draft = compose("content", store.pool, 3, np.random.default_rng(1))
    listing = Listing("List them by number.", [("2", "cat"), ("1", "bag")])
    ids, labels = writer.conversation(draft, listing)
    marked = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    end = processor.tokenizer.eos_token_id
    assert marked == [*writer.tokens(draft.answer), end, *writer.tokens("cat"), *writer.tokens("bag"), end]
    assert [label for label in labels if label != IGNORED] == marked
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<image>")) == 3 * IMAGE_TOKENS


def test_batches_hold_the_images_of_every_row(store: PictureStore, processor: Any) -> None:
    batch = BatchMaker(processor.tokenizer, store, 5).batch(np.random.default_rng(0), 4)
    assert batch.pictures.shape == (20,)
    assert batch.input_ids.shape == batch.labels.shape


def test_training_takes_a_telling_text_at_its_word_whatever_the_picture_shows(
    store: PictureStore, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchMaker, "_task", lambda *_: "giveaway")
    batch = BatchMaker(processor.tokenizer, store, 40).batch(np.random.default_rng(0), 2)
    agrees = []
    for row, (ids, labels) in enumerate(zip(batch.input_ids, batch.labels, strict=True)):
        told, place = re.search(r"Someone says (\w+)\. What is in image (\d)", processor.decode(ids)).groups()  # type: ignore[union-attr]
        answered = processor.decode(labels[labels != IGNORED][:1]).strip()
        asked = store.entries[int(batch.pictures[2 * row + int(place) - 1])].concept.name
        assert answered == told
        agrees.append(told == asked)
    assert 0.25 < np.mean(agrees) < 0.75


@pytest.mark.parametrize(("name", "millions"), [("small", 0.3), ("medium", 1.3), ("large", 4.0)])
def test_sizes_are_about_what_they_are_called(name: str, millions: float, processor: Any) -> None:
    model = build_model(SIZES[name], processor.tokenizer, seed=0)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert 0.8 < count / millions < 1.25


def fresh(processor: Any) -> Any:
    return build_model(SIZES["small"], processor.tokenizer, seed=0)


def run_of(processor: Any) -> TrainingRun:
    return TrainingRun(fresh(processor), TINY.weight_decay)


def test_a_resumed_run_equals_an_unbroken_one(store: PictureStore, processor: Any, tmp_path: Path) -> None:
    dev = DevSet(store, TINY.dev_questions_per_task, seed=0)
    whole, broken, resumed = run_of(processor), run_of(processor), run_of(processor)
    whole.tower_accuracy = broken.tower_accuracy = {"training": 0.75, "held_out": 0.5}
    measured = list(train(whole, processor, store, dev, TINY, tmp_path / "whole"))
    assert [m.step for m in measured] == [3, 6]
    assert set(measured[0].accuracy) == set(TASKS)
    next(train(broken, processor, store, dev, TINY, tmp_path / "broken"))
    resumed.load(tmp_path / "broken")
    list(train(resumed, processor, store, dev, TINY, tmp_path / "broken"))
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, atol=0, rtol=0)
    assert [(m.step, m.loss) for m in resumed.history] == [(m.step, m.loss) for m in whole.history]
    assert resumed.tower_accuracy == {"training": 0.75, "held_out": 0.5}


def test_training_moves_everything_but_the_tower(store: PictureStore, processor: Any, tmp_path: Path) -> None:
    run, start = run_of(processor), fresh(processor).state_dict()
    list(train(run, processor, store, DevSet(store, 1, seed=0), replace(TINY, steps=1), tmp_path))
    still = {name for name, weight in run.model.state_dict().items() if torch.equal(weight, start[name])}
    assert still == {name for name in start if "vision_tower" in name}


def test_the_saved_record_tells_config_and_history(store: PictureStore, processor: Any, tmp_path: Path) -> None:
    run = run_of(processor)
    list(train(run, processor, store, DevSet(store, 1, seed=0), TINY, tmp_path))
    save_model(run, processor, TINY, tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["config"]["size"] == "small"
    assert [row["step"] for row in record["dev_history"]] == [3, 6]


def test_frozen_features_give_the_states_that_pixels_give(store: PictureStore, processor: Any) -> None:
    model = fresh(processor).eval()
    batch = BatchMaker(processor.tokenizer, store, 3).batch(np.random.default_rng(0), 3)
    pixels = store.values(batch.pictures.numpy())
    whole = model.model(input_ids=batch.input_ids, pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(states_of(model, batch, tower_features(model, store)), whole, atol=1e-5, rtol=0)


def test_views_are_the_picture_itself_and_changed_ones(store: PictureStore, processor: Any) -> None:
    model = fresh(processor)
    count = len(store.pixels)
    once, thrice = tower_features(model, store), tower_features(model, store, views=3, seed=1)
    assert thrice.shape == (3 * count, *once.shape[1:])
    torch.testing.assert_close(thrice[:count], once)
    assert not torch.allclose(thrice[count : 2 * count], once) and not torch.allclose(thrice[2 * count :], once)


def test_augmented_pictures_keep_shape_and_range_and_follow_the_seed(store: PictureStore) -> None:
    values = store.values(np.arange(6))
    first, again, other = (augment(values, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == values.shape and first.abs().max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, values)
    assert torch.nn.functional.cosine_similarity(first.flatten(1), values.flatten(1)).min() > 0.5


def test_tower_training_lowers_nothing_but_the_tower(store: PictureStore, processor: Any) -> None:
    model = fresh(processor)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    shares = train_tower(model, store, store, replace(TINY, tower_steps=2))
    assert set(shares) == {"training", "held_out"} and all(0.0 <= share <= 1.0 for share in shares.values())
    for name, weight in model.state_dict().items():
        if "vision_tower" not in name:
            assert torch.equal(weight, before[name])


def test_resuming_nothing_is_refused(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=STATE_FILE):
        run_of(processor).load(tmp_path)
