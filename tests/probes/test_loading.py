"""Loading from folders: what is taken, what is refused before anything runs, and that each refusal is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from probes import HookedModel, attention_layers, find_image_spans
from probes.inputs import InputError
from tests.probes import processors
from tests.probes.hooked import hooked, picture, questions, sharp_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "llava"
    sharp_model("llava").save_pretrained(folder)
    processors.build_processor("llava").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refusal(path: str | Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        HookedModel.from_pretrained(path, **settings)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_public_names_work_as_documented(saved: Path) -> None:
    images, question = questions()[0]
    model = HookedModel.from_pretrained(saved)
    trace = model.trace(images, question, answer=None, max_new_tokens=3, rows="paper", per_head=False)
    assert isinstance(trace.answer, str)
    assert trace.layers == attention_layers(model.model) == model.layers == [0, 1, 2]
    assert trace.factors.shape == (3, 3)
    assert trace.focus(rule="M-LND", last=4) == int(np.argmax(trace.factors.mean(axis=0)))
    assert len(trace.cells(image=0)) == 16
    assert trace.map(image=0, layer=-1).shape == (4, 4)
    encoded = model.encode([questions()[0]])
    found = find_image_spans(encoded.inputs, model.model.config, model.processor)
    assert [tuple(span) for span in found[0]] == [tuple(span) for span in trace.spans]
    assert "LlavaForConditionalGeneration" in repr(model) and "images" in repr(trace)


def test_a_loaded_model_traces_as_the_one_that_was_saved(saved: Path) -> None:
    question = questions()[0]
    before = hooked("llava").trace(question.images, question.text, answer="image 1")
    model = HookedModel.from_pretrained(str(saved), dtype="float32", device="cpu", attn_implementation="sdpa")
    after = model.trace(question.images, question.text, answer="image 1")
    np.testing.assert_allclose(after.factors, before.factors, atol=1e-6)
    assert not model.model.training
    assert model.model.dtype == torch.float32
    eager = HookedModel.from_pretrained(saved, attn_implementation="eager")
    assert eager.model.config.get_text_config()._attn_implementation == "eager"
    assert HookedModel.from_pretrained(saved, dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_paths_that_lead_nowhere(saved: Path, tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nothing")
    assert "no such folder" in refusal("./nothing")
    assert "no such folder" in refusal("")
    assert "no such folder here, and the hub does not give it" in refusal("nobody/nothing-of-this-name")
    assert "no such folder here, and the hub does not give it" in refusal("not a name!")
    assert "this is a file" in refusal(saved / "config.json")
    assert "holds no config.json" in refusal(tmp_path)


def test_pickled_weights_need_leave(copied: Path) -> None:
    before = HookedModel.from_pretrained(copied).trace([picture()], "Which?", answer="1").factors
    pickled(copied)
    assert "pytorch_model.bin" in (message := refusal(copied))
    assert "allow_pickle=True" in message and "--allow-pickle" in message
    after = HookedModel.from_pretrained(copied, allow_pickle=True).trace([picture()], "Which?", answer="1").factors
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["weights.pt", "model.pkl", "model.ckpt", "weights.pth"])
def test_pickles_of_any_name_are_refused(copied: Path, name: str) -> None:
    (copied / "model.safetensors").rename(copied / name)
    assert name in refusal(copied)


def test_safetensors_are_taken_where_pickles_lie_beside_them(copied: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"never read")
    HookedModel.from_pretrained(copied)


def test_an_index_that_points_at_pickles_is_refused(copied: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "evil.bin"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "evil.bin" in refusal(copied)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_of_the_checkpoints_own_is_not_run(copied: Path, tmp_path: Path, file: str) -> None:
    marker = tmp_path / "ran"
    (copied / "evil.py").write_text(f"open({str(marker)!r}, 'w').write('ran')\n")
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoTokenizer", "AutoProcessor")
    edit(copied / file, lambda content: content.update(auto_map=dict.fromkeys(names, "evil.Evil")))
    message = refusal(copied)
    assert file in message and "trust_remote_code=True" in message and "--trust-remote-code" in message
    assert not marker.exists()
    if file == "config.json":
        refusal(copied, trust_remote_code=True)
        assert marker.exists()


def test_nested_requests_for_code_are_found(copied: Path) -> None:
    edit(copied / "config.json", lambda content: content["text_config"].update(auto_map={"AutoConfig": "evil.Evil"}))
    assert "auto_map" in refusal(copied)


def test_a_text_only_model_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=50, **settings)).save_pretrained(tmp_path)
    processors.build_tokenizer("llava").save_pretrained(tmp_path)
    assert "'llama' model is text-only" in refusal(tmp_path)


def test_a_model_without_its_processor_is_refused(copied: Path) -> None:
    for path in copied.iterdir():
        if path.name not in ("config.json", "model.safetensors", "generation_config.json"):
            path.unlink()
    assert "processor" in refusal(copied)


def test_a_model_with_a_tokenizer_only_is_refused(copied: Path) -> None:
    (copied / "processor_config.json").unlink()
    assert "processor" in refusal(copied)


def test_a_processor_without_a_chat_template_is_refused(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink()
    assert "chat template" in refusal(copied)


def test_broken_files_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in refusal(copied)
    tensors = load_file_bytes(whole, copied)
    save_file({name: tensor for name, tensor in tensors.items() if "q_proj" not in name}, weights, {"format": "pt"})
    assert "missing" in refusal(copied)
    weights.unlink()
    assert "no weights" in refusal(copied)
    (copied / "config.json").write_text("{")
    assert "config.json cannot be read" in refusal(copied)
    (copied / "config.json").write_text("{}")
    assert "names no model_type" in refusal(copied)
    (copied / "config.json").write_text('{"model_type": "no_such_model"}')
    assert "not understood" in refusal(copied)


def load_file_bytes(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    assert folder.is_dir()
    return load(content)


def test_a_foreign_processor_is_refused(copied: Path) -> None:
    for path in copied.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    processors.build_processor("qwen2_5_vl").save_pretrained(copied)
    assert "do not match" in refusal(copied)


def test_an_attention_implementation_that_is_not_there(saved: Path) -> None:
    from transformers.utils import is_flash_attn_2_available

    assert not is_flash_attn_2_available()
    message = refusal(saved, attn_implementation="flash_attention_2")
    assert (
        'install flash-attn (or kernels, for the hub\'s build of it), or load with attn_implementation="sdpa"'
        in message
    )
    assert "'nonsense' is not known; there are eager" in refusal(saved, attn_implementation="nonsense")


def test_an_attention_implementation_that_only_the_checkpoint_asks_for(copied: Path) -> None:
    edit(copied / "config.json", lambda content: content.update(attn_implementation="flash_attention_2"))
    assert "the attn_implementation that its config.json asks for cannot be used here" in refusal(copied)
    assert HookedModel.from_pretrained(copied, attn_implementation="eager").layers == [0, 1, 2]


def test_a_processor_with_patches_of_another_size(saved: Path) -> None:
    processor = processors.build_processor("llava")
    processor.patch_size *= 2
    with pytest.raises(InputError, match=r"12 are left.*the processor of this very model"):
        HookedModel(sharp_model("llava"), processor).trace(*questions()[0], max_new_tokens=1)
    processor = processors.build_processor("llava")
    processor.image_processor.crop_size = {"height": 24, "width": 24}
    with pytest.raises(InputError, match="check that processor and model belong together"):
        HookedModel(sharp_model("llava"), processor).trace(*questions()[0], max_new_tokens=1)


class Hub:
    """Stands in for huggingface_hub.snapshot_download: hands files out of one folder, and notes which."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source, self.cache, self.given = source, cache, set[str]()

    def __call__(self, name: str, allow_patterns: list[str], **_: Any) -> str:
        if name != "someone/tiny":
            raise OSError("401 Client Error.\nRepository Not Found")
        self.cache.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for path in self.source.glob(pattern):
                shutil.copy(path, self.cache)
                self.given.add(path.name)
        return str(self.cache)


@pytest.fixture
def hub(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(copied, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def test_a_hub_name_is_downloaded_and_loaded(hub: Hub) -> None:
    model = HookedModel.from_pretrained("someone/tiny")
    assert "model.safetensors" in hub.given
    assert model.trace([picture()], "Which?", max_new_tokens=1).layers == [0, 1, 2]
    assert "Repository Not Found" not in (message := refusal("someone/else")) and "401 Client Error." in message


def test_no_weights_are_downloaded_of_what_is_refused(hub: Hub) -> None:
    (hub.source / "evil.py").write_text("raise SystemExit")
    edit(hub.source / "config.json", lambda content: content.update(auto_map={"AutoConfig": "evil.Evil"}))
    assert "auto_map" in refusal("someone/tiny")
    assert not {"model.safetensors", "evil.py"} & hub.given


def test_pickles_are_not_even_downloaded_without_leave(hub: Hub) -> None:
    pickled(hub.source)
    assert "allow_pickle=True" in refusal("someone/tiny")
    assert "pytorch_model.bin" not in hub.given
    HookedModel.from_pretrained("someone/tiny", allow_pickle=True)
    assert "pytorch_model.bin" in hub.given


def test_nothing_is_written_beside_the_weights(copied: Path) -> None:
    before = sorted(path.name for path in copied.rglob("*"))
    HookedModel.from_pretrained(copied).trace([picture()], "Which?", max_new_tokens=1)
    assert sorted(path.name for path in copied.rglob("*")) == before
