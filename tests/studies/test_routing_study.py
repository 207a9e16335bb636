"""`sightcheck routing` on tiny models with a planted expert: its numbers against plain ones, resuming, and refusals."""

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probes.experts.chance import pair_chances
from probes.experts.effects import expert_effects
from probes.experts.files import load_routing, save_routing
from probes.model import HookedModel, Question
from probes.routing import record_routing
from studies.cli import main
from studies.multi_image import read_questions
from studies.routing.figures import LEAST_EXPECTED, figures
from studies.routing.recording import probe_routing, recorded
from studies.routing.shards import read_shard
from studies.routing.table import HEADINGS
from studies.runs import RunFolder
from tests.studies.small_audit import read_rows, write_rows
from tests.studies.small_audit import save_model as save_dense
from tests.studies.small_routing import FOR_IMAGES, save_data, save_model

pytestmark = pytest.mark.filterwarnings("ignore")
FEW = ["--permutations", "49", "--batch-size", "4", "--device", "cpu"]


class Made:
    """A model, an earlier checkpoint as folder and as file, questions, and a finished run over all."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.out = root, save_data(root / "data"), root / "run"
        self.model, self.early = save_model(root / "model"), save_model(root / "early", noise=1.0)
        self.records = read_questions(self.data).records
        earlier = HookedModel.from_pretrained(self.early, device="cpu")
        self.file = save_routing(root / "early.npz", probe_routing(earlier, self.records, step=100, batch=3))
        self.status = main([*self.words(self.out), "--checkpoints", str(self.file), str(self.early), "--knockout", "2"])
        self.run = RunFolder.open(self.out)
        self.entries = self.run.read_metrics()
        self.arrays = read_shard(self.out / "measures.npz")

    def words(self, out: Path, model: Path | None = None, data: Path | None = None) -> list[str]:
        named = ["--model", str(model or self.model), "--data", str(data or self.data), "--out", str(out)]
        return ["routing", *named, *FEW]

    def entry(self, name: str, layer: int, **keys: Any) -> dict[str, Any]:
        (found,) = [
            each
            for each in self.entries
            if each["name"] == name
            and each["layer"] == layer
            and all(each.get(key) == value for key, value in keys.items())
        ]
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("routing"))


@pytest.fixture(scope="module")
def plain(made: Made) -> dict[str, Any]:
    """Question by question through the engine, without batches, shards or measures."""
    model = HookedModel.from_pretrained(made.model, device="cpu")
    unbiased = HookedModel.from_pretrained(made.model, device="cpu")
    for name, tensor in (*unbiased.model.named_buffers(), *unbiased.model.named_parameters()):
        if name.endswith("e_score_correction_bias"):
            tensor.data.zero_()
    found: dict[str, Any] = {
        "hits": np.zeros((2, 2, 16)),
        "tokens": np.zeros(2),
        "choices": {},
        "gaps": [],
        "moved": [],
    }
    for record in made.records:
        encoded = model.encode([Question(record.images, record.question)], [record.answer])
        shown = np.zeros(encoded.inputs["input_ids"].shape[1], dtype=bool)
        for span in encoded.spans[0]:
            for start, stop in span.runs:
                shown[start:stop] = True
        layers = record_routing(model.model, encoded.inputs)
        found["choices"][record.id] = np.stack([each.indices for each in layers.values()])
        ordered = np.sort(layers[1].scores, axis=-1)
        found["gaps"] += (ordered[:, -3] - ordered[:, -4]).tolist()
        # What enters the first layer with experts is the same in both models.
        without = record_routing(unbiased.model, encoded.inputs)[1].indices
        pairs = zip(layers[1].indices.tolist(), without.tolist(), strict=True)
        found["moved"] += [set(mine) != set(theirs) for mine, theirs in pairs]
        for kind, mask in enumerate((shown, ~shown)):
            found["tokens"][kind] += mask.sum()
            for at, each in enumerate(layers.values()):
                np.add.at(found["hits"][kind, at], each.indices[mask].ravel(), 1)
    return found


def test_loads_are_those_counted_question_by_question(made: Made, plain: dict[str, Any]) -> None:
    assert made.status == 0 and made.arrays["layers"].tolist() == [1, 2]
    whole = plain["hits"].sum(axis=0) / plain["tokens"].sum()
    np.testing.assert_allclose(made.arrays["load"][..., 0], whole)
    assert made.arrays["modality_labels"].tolist() == ["image", "text"]
    by_kind = plain["hits"] / plain["tokens"][:, None, None]
    np.testing.assert_allclose(made.arrays["modality_load"][..., 0], by_kind)
    np.testing.assert_array_equal(made.arrays["modality_tokens"], plain["tokens"])
    for at, layer in enumerate((1, 2)):
        entry = made.entry("load", layer, expert=FOR_IMAGES)
        assert entry["estimate"]["value"] == pytest.approx(whole[at, FOR_IMAGES])
        assert entry["estimate"]["n"] == plain["tokens"].sum() and entry["estimate"]["clusters"] == 10
        share = whole[at] / whole[at].sum()
        entropy = -(share[share > 0] * np.log(share[share > 0])).sum() / np.log(16)
        assert made.entry("load_entropy", layer)["estimate"]["value"] == pytest.approx(entropy)
        assert made.entry("largest_over_mean", layer)["estimate"]["value"] == pytest.approx(share.max() * 16)


def test_margins_and_the_effect_of_the_bias_are_the_models_own(made: Made, plain: dict[str, Any]) -> None:
    assert made.entry("margin", 1)["estimate"]["value"] == pytest.approx(np.mean(plain["gaps"]), rel=1e-4)
    assert made.entry("margin_without_bias", 1)["estimate"]["value"] != made.entry("margin", 1)["estimate"]["value"]
    moved = made.entry("moved_by_bias", 1)["estimate"]
    assert moved["value"] == pytest.approx(np.mean(plain["moved"])) and 0.5 < moved["value"] < 1


def test_the_expert_that_was_planted_is_found(made: Made) -> None:
    for at, layer in enumerate((1, 2)):
        found = made.entry("specialisation", layer, label="modality")
        assert found["p_value"] <= 0.05 and FOR_IMAGES in found["specialists"]
        assert found["estimate"]["value"] > 3 * found["chance"] and found["shuffled"] == "within samples"
        image, text = made.arrays["modality_load"][:, at, FOR_IMAGES, 0]
        assert image > text + 0.2
        assert made.entry("specialisation", layer, label="task")["shuffled"] == "between samples"
        apart = made.entry("largest_divergence", layer, label="modality")
        assert apart["between"] == ["image", "text"] and apart["p_value"] <= 0.05
        assert apart["estimate"]["value"] > 3 * apart["chance"] > 0
        assert made.entry("largest_divergence", layer, label="image")["between"][0].startswith("image ")


def test_the_checkpoint_and_its_file_are_equally_far_from_the_model(made: Made, plain: dict[str, Any]) -> None:
    saved = load_routing(made.file)
    for at, layer in enumerate((1, 2)):
        from_file = made.entry("overlap", layer, checkpoint=str(made.file), against="model")
        from_model = made.entry("overlap", layer, checkpoint=str(made.early), against="model")
        assert from_file["estimate"] == from_model["estimate"] and from_file["step"] == 100
        shared = [
            len(set(mine) & set(theirs)) / 3
            for place, name in enumerate(saved.names)
            for mine, theirs in zip(
                plain["choices"][name][at].tolist(), saved.indices[at, saved.samples == place].tolist(), strict=True
            )
        ]
        assert from_file["estimate"]["value"] == pytest.approx(np.mean(shared)) and 0.2 < np.mean(shared) < 0.95
        assert from_file["floor"] == 3 / 16
        assert made.entry("overlap", layer, checkpoint="model", against="model")["estimate"]["value"] == 1
        same = made.entry("overlap", layer, checkpoint=str(made.early), against=str(made.file))
        assert same["estimate"]["value"] == 1, "a file and the model that it was made from"
    assert made.arrays["steps"].tolist() == [100, -1, -1]
    assert made.arrays["information_along"].shape == (3, 2)


def test_the_example_of_the_docs_runs(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "experts.md").read_text()
    monkeypatch.chdir(tmp_path)
    names = {"model": HookedModel.from_pretrained(made.early, device="cpu"), "records": made.records[:2]}
    exec(text.split("```python\n")[2].split("```")[0], names)
    written = load_routing("step-500.npz")
    assert written.step == 500 and written.names == tuple(each.id for each in made.records[:2])
    np.testing.assert_array_equal(written.indices, load_routing(made.file).of_questions(written.names).indices)


def test_knockouts_are_those_of_every_expert_asked_in_turn(made: Made) -> None:
    model = HookedModel.from_pretrained(made.model, device="cpu")
    records = {each.id: each for each in made.records}
    effects = []
    for shard in map(read_shard, sorted((made.out / "knockout").iterdir())):
        record = records[str(shard["name"])]
        every: list[tuple[int, int | str]] = [(layer, expert) for layer in (1, 2) for expert in range(16)]
        every += [(1, "shared"), (2, "shared")]
        found = expert_effects(model, Question(record.images, record.question), record.answer, every)
        np.testing.assert_allclose(shard["effects"].ravel(), found[:32], atol=1e-5)
        np.testing.assert_allclose(shard["shared"], found[32:], atol=1e-5)
        effects.append(found)
    assert len(effects) == 2 and np.abs(effects[0][:32]).max() > 0.1 and (effects[0][:32] == 0).any()
    mean = np.mean(effects, axis=0)
    np.testing.assert_allclose(made.arrays["knockout"][..., 0].ravel(), mean[:32], atol=1e-5)
    entry = made.entry("knockout_effect", 2, expert="shared")
    assert entry["estimate"]["value"] == pytest.approx(mean[33], abs=1e-5) and entry["estimate"]["n"] == 2


def test_pairs_that_are_drawn_are_counted_over_those_expected(made: Made, plain: dict[str, Any]) -> None:
    drawn: dict[str, Any] = {}
    others = ("expert_load", "specialisation", "training_course", "expert_effects")
    library = SimpleNamespace(
        co_activation=lambda ratio, layers: drawn.update(ratio=ratio, layers=layers),
        **{name: lambda *_, **__: None for name in others},
    )
    assert "co-activation" in [figure.name for figure in figures(made.arrays, library)]
    assert drawn["layers"] == [1, 2]
    compared = 0
    for at, ratio in enumerate(drawn["ratio"]):
        tokens = [set(token) for each in plain["choices"].values() for token in each[at].tolist()]
        load = np.array([sum(expert in token for token in tokens) for expert in range(16)]) / len(tokens)
        expected = pair_chances(load, 3) * len(tokens)
        for first, second in combinations(range(16), 2):
            if expected[first, second] >= LEAST_EXPECTED:
                both = sum({first, second} <= token for token in tokens)
                assert ratio[first, second] == pytest.approx(both / expected[first, second])
                assert ratio[second, first] == pytest.approx(ratio[first, second])
                compared += 1
            else:
                assert np.isnan(ratio[first, second])
    assert 0 < compared < 2 * 120, "some pairs are common, and some are not"


def test_the_folder_is_whole_and_the_report_opens_alone(made: Made) -> None:
    names = {path.stem for path in (made.out / "figures").iterdir()}
    assert names == {
        "load", "specialisation", "co-activation", "stability", "specialisation-along-training", "knockout"
    }  # fmt: skip
    assert made.run.verify().ok and made.run.manifest.config["study"] == "routing" and made.run.manifest.finished
    page = (made.out / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 6
    assert not re.search(r"<script|https?://(?!www\.w3)", page) and "default-src 'none'" in page
    for entry in made.entries:
        assert {"value", "n", "low", "high"} <= set(entry["estimate"])


def test_an_interrupted_study_goes_on_to_the_same_numbers(
    made: Made, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def interrupted(*words: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return recorded(*words)

    monkeypatch.setattr("studies.routing.measuring.recorded", interrupted)
    checkpoints = ["--checkpoints", str(made.file), str(made.early), "--knockout", "2"]
    words = [*made.words(tmp_path / "out"), *checkpoints]
    assert main(words) == 130
    said = capsys.readouterr().err
    assert "sightcheck routing" in said and f"--checkpoints {made.file} {made.early}" in said and "--resume" in said
    assert len(RunFolder.open(tmp_path / "out").done_batches()) == 2
    monkeypatch.setattr("studies.routing.measuring.recorded", recorded)
    assert main([*words, "--resume", "--samples", "9"]) == 2
    assert "samples" in capsys.readouterr().err
    assert main(words) == 2 and "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 80 and "…" not in shown
    assert all(heading in shown for heading in HEADINGS) and "early.npz" in shown.replace("\n", "")
    assert json.dumps(RunFolder.open(tmp_path / "out").read_metrics()) == json.dumps(made.entries)


def test_a_question_that_fails_is_counted_and_escaped(made: Made, tmp_path: Path, capsys: Any) -> None:
    rows = read_rows(made.data / "questions.jsonl")[:4]
    for row in rows:
        row["images"] = [str(made.data / name) for name in row["images"]]
    (tmp_path / "broken.png").write_bytes((made.data / "1-0.png").read_bytes()[:60])
    rows[1] |= {"images": [str(tmp_path / "broken.png"), *rows[1]["images"][1:]], "id": "<script>alert(1)</script>"}
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "questions.jsonl", rows)
    assert main(made.words(tmp_path / "out", data=tmp_path / "data")) == 1
    shown = capsys.readouterr()
    assert "1 question failed" in shown.err and "no --checkpoints" in shown.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page and "<script>" not in page
    assert RunFolder.open(tmp_path / "out").count("samples") == 4


def calling_all(folder: Path) -> Path:
    """A model whose router chooses every expert."""
    config = save_model(folder) / "config.json"
    told = json.loads(config.read_text())
    decoder = told["text_config"]
    decoder["num_experts_per_tok"], decoder["topk_group"] = decoder["n_routed_experts"], decoder["n_group"]
    config.write_text(json.dumps(told))
    return folder


def test_what_cannot_be_measured_is_refused_before_anything_is_written(made: Made, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    saved = load_routing(made.file)
    other = save_routing(tmp_path / "other.npz", replace(saved, ids=saved.ids + 1))
    later = saved.of_questions(saved.names[3:])
    partly = save_routing(tmp_path / "partly.npz", replace(later, ids=later.ids + 1))
    strange = save_routing(tmp_path / "strange.npz", replace(saved, names=tuple(f"x{name}" for name in saved.names)))
    (tmp_path / "broken.npz").write_bytes(made.file.read_bytes()[:-30])
    hybrid = save_model(tmp_path / "hybrid", "nemotron")
    for words, message in (
        ([*made.words(out, save_dense(tmp_path / "dense"))], "no experts to route to.*sightcheck audit"),
        (
            [*made.words(out), "--checkpoints", str(hybrid)],
            r"different shapes \(layers with experts: \[1, 2\] and \[1, 4",
        ),
        ([*made.words(out, calling_all(tmp_path / "all"))], "every token to all 16 experts, so there is no choice"),
        ([*made.words(out), "--checkpoints", str(other)], "as different tokens"),
        ([*made.words(out), "--checkpoints", str(partly)], "as different tokens"),
        ([*made.words(out), "--checkpoints", str(strange)], "holds none of the 10 questions"),
        ([*made.words(out), "--checkpoints", str(tmp_path / "broken.npz")], "no saved routing"),
        ([*made.words(out), "--checkpoints", str(tmp_path / "none.npz")], "no such file"),
        ([*made.words(out), "--checkpoints", str(other), str(other)], "names one twice"),
        ([*made.words(out), "--checkpoints", "model"], r"write the folder as \./model"),
        ([*made.words(out), "--samples", "0"], "--samples must be at least 1"),
        (["routing", "--model", "bundled-dots2", "--out", str(out)], "no bundled model is called bundled-dots2"),
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert re.search(message, said), said
        assert not out.exists()
