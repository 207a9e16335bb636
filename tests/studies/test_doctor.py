"""The doctor: lengths, memory and time against what is measured, and every problem by name."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.attention import AttentionRecorder
from probes.encoding import row_sets
from probes.families import FAMILIES
from probes.inputs import InputError
from probes.model import HookedModel, Question
from studies.auditing.run import Settings
from studies.cli import main
from studies.doctor.findings import Findings
from studies.doctor.layers import LayerPath, layer_paths
from studies.doctor.lengths import Length, measure_lengths
from studies.doctor.machine import check_imports, check_machine, devices, free_bytes, group_room
from studies.doctor.memory import Batch, Memory, cache_bytes, logits_bytes, recorder_bytes, weights_bytes
from studies.doctor.resources import batch_of
from studies.doctor.timing import Timed, expected_seconds, time_questions
from studies.multi_image import read_questions
from tests.probes.processors import build_model, build_processor
from tests.studies.small_audit import read_rows, save_model, save_questions, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_questions(tmp_path_factory.mktemp("data") / "data")


def tiny(family: str) -> Any:
    return build_model(family, build_processor(family)).eval()


def tokens_of(network: Any, count: int) -> torch.Tensor:
    return torch.full((2, count), 5, device=network.device)


def test_layers_that_were_not_seen_keep_nothing_from_being_examined(
    model: Path, data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.doctor.layers._forward", lambda *_: (None, "no images given"))
    assert doctor("--model", model, "--data", data) == 0
    text = capsys.readouterr().out
    assert "attention, not seen: no images given" in text and "recorded attention of 3 layers, whose sizes" in text


@pytest.mark.parametrize(("family", "count"), [("llava", 9), ("gemma3", 63), ("gemma3", 64), ("gemma3", 90)])
def test_the_cache_is_as_large_as_measured(family: str, count: int) -> None:
    network = tiny(family)
    with torch.no_grad():
        cache = network(input_ids=tokens_of(network, count), use_cache=True).past_key_values
    held = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    measured = sum(tensor.numel() * tensor.element_size() for tensor in held)
    batch = Batch(samples=2, tokens=count, images=1, image_tokens=4, answer_tokens=3)
    paths = layer_paths(network)
    assert cache_bytes(paths, batch, network.dtype.itemsize) == measured
    # Without windows it is another number, once the prompt is longer than one.
    boundless = [replace(path, window=None) for path in paths]
    windows = [path.window for path in paths if path.window is not None]
    larger = cache_bytes(boundless, batch, network.dtype.itemsize) > measured
    assert larger == any(window <= count for window in windows) and (count < 90 or larger)


def test_a_window_bounds_the_cache() -> None:
    path = LayerPath(0, "sliding", "sdpa", 8, 4, 2, 16, 16)
    sizes = [cache_bytes([path], Batch(1, tokens, 1, 1, 1), 2) for tokens in (4, 7, 8, 100)]
    assert sizes == [2 * 32 * 2 * held for held in (4, 7, 7, 7)]


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("maps", [False, True])
def test_the_recorder_is_as_large_as_measured(model: Path, data: Path, per_head: bool, maps: bool) -> None:
    hooked = HookedModel.from_pretrained(model)
    record = read_questions(data).records[0]
    encoded = hooked.encode([Question(record.images, record.question)] * 3, ["a cat"] * 3)
    recorder = AttentionRecorder(
        hooked.model, encoded.spans, row_sets(encoded, ("paper", "predicting")), per_head=per_head, cells=maps
    )
    with recorder:
        hooked.score(encoded)
    tensors = [*recorder._sums.values(), *recorder._counts.values()]
    tensors += [cells for layer in recorder._cells.values() for cells in layer]
    spans = encoded.spans[0]
    image_tokens = sum(len(span.tokens) for span in spans)
    batch = Batch(3, encoded.columns, len(spans), image_tokens, 2, per_head=per_head, maps=maps)
    measured = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert recorder_bytes(layer_paths(hooked.model), batch) == measured


def test_weights_are_those_of_the_file_and_buffers(model: Path) -> None:
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as file:
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    network = HookedModel.from_pretrained(model).model
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    assert weights_bytes(network) == sum(each.numel() * each.element_size() for each in stored) + buffers


def test_logits_and_total_by_hand() -> None:
    assert logits_bytes(Batch(4, 100, 2, 32, answer_tokens=7), vocabulary=1000, itemsize=2) == 8 * 1000 * (4 * 2 + 8)
    assert Memory(100, 30, 10, 5).total == 130 and Memory(100, 10, 20, 5).total == 125


def test_lengths_are_the_processors(model: Path, data: Path) -> None:
    hooked = HookedModel.from_pretrained(model)
    records = read_questions(data).records
    lengths = measure_lengths(hooked, records, reserve=4)
    assert len(lengths.found) == len(records) and not lengths.refused
    assert [each.tokens for each in lengths.found] == sorted(each.tokens for each in lengths.found)
    for each in lengths.found:
        trace = hooked.trace(each.record.images, each.record.question, answer="a", maps=False)
        assert trace.prompt_tokens == each.tokens
        image = hooked.model.config.image_token_id
        ids = hooked.encode([Question(each.record.images, each.record.question)]).inputs["input_ids"]
        assert sum(each.image_tokens) == int((ids == image).sum()) and len(each.image_tokens) == len(each.record.images)
    spread = lengths.spread(3)
    assert spread[0] == lengths.found[0] and spread[-1] == lengths.longest


def test_time_is_measured_after_a_warm_up_and_per_copy() -> None:
    asked: list[tuple[int, int]] = []
    ticks = iter([0.0, 4.0, 10.0, 18.0])

    def ask(length: Length, copies: int) -> None:
        asked.append((length.tokens, copies))

    lengths = [Length(None, tokens, ()) for tokens in (10, 20)]  # type: ignore[arg-type]
    timed = time_questions(ask, lengths, 4, lambda: next(ticks))
    assert asked == [(10, 4), (10, 4), (20, 4)] and timed == [Timed(10, 1.0), Timed(20, 2.0)]
    assert expected_seconds(timed, [5, 15, 40], 6) == pytest.approx(6 * (1.0 + 1.5 + 2.0) / 3)


def test_the_machine_is_reported_and_a_broken_bridge_is_no_problem() -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("made for another torch")

    findings = Findings()
    check_machine(findings, broken)
    text = findings.text()
    assert f"torch {torch.__version__.split('+')[0]}" in text and "cpu:" in text
    assert "nnsight" in text and not findings.problems
    assert "made for another torch" in text or "not installed" in text


def test_memory_is_what_the_control_group_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("1:name=old:/\n0::/outer/inner\n")
    for group, limit, used, pages in (("outer", "9000", 5000, 1500), ("outer/inner", "max", 4000, 0)):
        (root / group).mkdir(parents=True)
        for name, text in (("max", limit), ("current", used), ("stat", f"anon 1\ninactive_file {pages}")):
            (root / group / f"memory.{name}").write_text(f"{text}\n")
    assert group_room(root, own) == 9000 - 5000 + 1500
    (root / "outer" / "memory.current").write_text("20000\n")
    assert group_room(root, own) == 0
    (root / "outer" / "memory.max").write_text("max\n")
    assert group_room(root, own) is None and group_room(root, tmp_path / "absent") is None
    (root / "outer" / "memory.max").write_text("not a number\n")
    assert group_room(root, own) is None
    monkeypatch.setattr("studies.doctor.machine.group_room", lambda: 5500)
    assert free_bytes(torch.device("cpu")) == 5500
    assert "5.4 KiB of" in devices()[0] and "control group" in devices()[1]


def test_a_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.doctor.machine.LIBRARIES", ("no-such-library",))
    monkeypatch.setattr("studies.doctor.machine.BRIDGES", {"no-such-bridge": "no_such_bridge"})
    findings = Findings()
    check_machine(findings)
    assert findings.problems == ["no-such-library is not installed: pip install no-such-library"]
    assert "no-such-bridge: not installed (optional bridge" in findings.text()


def test_a_shadowing_package_is_a_problem(tmp_path: Path) -> None:
    from sightcheck import check_packages

    findings = Findings([("libraries", [])])
    check_imports(findings, lambda: check_packages(home=tmp_path))
    (problem,) = findings.problems
    assert "shadowed by" in problem and str(tmp_path) in problem


def doctor(*words: object) -> int:
    return main(["doctor", *map(str, words), "--max-new-tokens", "4"])


def test_everything_well_is_status_0_and_says_everything(model: Path, data: Path, capsys: Any) -> None:
    assert doctor("--model", model, "--data", data) == 0
    text = capsys.readouterr().out
    for said in ("LlavaForConditionalGeneration (llava)", "12 questions", "layers are recorded", "95th percentile"):
        assert said in text
    for said in ("key-value cache", "n = 3 questions", "no problem found", "all 12 questions encoded"):
        assert said in text


def test_the_machine_alone_needs_no_model(capsys: Any) -> None:
    assert doctor() == 0
    assert "transformers" in capsys.readouterr().out


def test_an_unknown_family_is_refused_and_its_layers_are_told(
    model: Path, data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAMILIES, "llava")
    assert doctor("--model", model, "--data", data) == 1
    text = capsys.readouterr().out
    assert "no image spans are known for model type 'llava'" in text and "attention_factors" in text
    assert "sdpa, full" in text and "tokens per sample" not in text


def test_a_processor_of_another_model_is_a_problem(model: Path, tmp_path: Path, capsys: Any) -> None:
    from transformers import AutoProcessor

    shutil.copytree(model, tmp_path / "mixed")
    processor = AutoProcessor.from_pretrained(model)
    processor.tokenizer.add_tokens([f"another{number}" for number in range(3000)])
    processor.save_pretrained(tmp_path / "mixed")
    assert doctor("--model", tmp_path / "mixed") == 1
    assert "model and processor do not match" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"), [("flash_attention_2", "install flash-attn"), ("sdpaa", "'sdpaa' is not known; there are eager")]
)
def test_an_implementation_that_is_not_there_is_named_with_the_remedy(
    model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: False)
    assert doctor("--model", model, "--attn-implementation", name) == 1
    text = capsys.readouterr().out
    assert name in text and said in text


def test_prompts_past_the_context_are_a_problem(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(data, tmp_path / "data")
    rows = read_rows(tmp_path / "data" / "questions.jsonl")
    rows[3]["question"] += " word" * 5000
    write_rows(tmp_path / "data" / "questions.jsonl", rows)
    assert doctor("--model", model, "--data", tmp_path / "data") == 1
    text = capsys.readouterr().out
    assert "1 of 12 questions cannot be put to the model; 'q3'" in text and "1 problem found" in text


def test_memory_that_is_not_there_is_a_problem(
    model: Path, data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.doctor.resources.free_bytes", lambda _: 1000)
    assert doctor("--model", model, "--data", data) == 1
    assert "1000 B free on cpu: take a smaller --batch-size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("no room"), "out of memory with 8 samples at once: take a smaller --batch-size"),
        (InputError("an odd question"), "fails in the model: an odd question"),
    ],
)
def test_questions_that_fail_while_timed_are_a_problem_beside_all_that_was_found(
    model: Path, data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("studies.auditing.run.trace_records", fail)
    assert doctor("--model", model, "--data", data) == 1
    text = capsys.readouterr().out
    assert said in text and "layers are recorded" in text and "1 problem found" in text


def test_the_memory_of_image_to_image_questions_counts_the_rows_of_the_last_image(data: Path) -> None:
    record = read_questions(data).records[0]
    anchored = replace(record, meta={**record.meta, "last_fixed": True})
    row_sets = [batch_of(Length(each, 9, (4,)), Settings(), 2).row_sets for each in (record, anchored)]
    assert row_sets == [2, 3]


def test_broken_images_are_a_problem(data: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "4-0.png").write_text("no image")
    assert doctor("--data", tmp_path / "data") == 1
    assert "1 sample cannot be read; 'q4'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("--model", "/no/such/folder"),
        ("--data", "/no/such/folder"),
        ("--batch-size", "0"),
        ("--device", "cuda:99"),
        ("--dtype", "int3"),
    ],
)
def test_bad_arguments_are_status_2(words: tuple[str, ...], capsys: Any) -> None:
    assert doctor(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("sightcheck: ") and said.count("\n") == 1
