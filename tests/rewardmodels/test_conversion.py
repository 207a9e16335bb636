"""Value-head checkpoints: the converted score is the old module's own, up to the constant that is noted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from probes.inputs import InputError, Turn
from rewardmodels.conversion import convert
from rewardmodels.model import RewardModel, as_turns
from tests.rewardmodels.small import save_base, three_prompts
from tests.rewardmodels.test_model import RESPONSES, text_only

TEXTS = [as_turns("Hello there"), as_turns("What is it"), as_turns("and now this one")]


class ValueHead(nn.Module):
    """The head as trl's wrapper computed it: dropout, then one linear layer in float32."""

    def __init__(self, width: int, bias: float | None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.summary = nn.Linear(width, 1, bias=bias is not None)
        with torch.no_grad():
            self.summary.weight.copy_(torch.randn(1, width, generator=generator))
            if bias is not None:
                self.summary.bias.fill_(bias)

    def forward(self, states: Tensor) -> Tensor:
        values: Tensor = nn.functional.dropout(states, 0.1, training=False).to(self.summary.weight.dtype)
        return self.summary(values)  # type: ignore[no-any-return]


def old_scores(model: Any, head: ValueHead, reward: RewardModel, prompts: list[tuple[Turn, ...]]) -> list[float]:
    """What the old module said: the value at the last token of the whole model's last hidden state."""
    found = []
    for prompt, response in zip(prompts, RESPONSES, strict=True):
        inputs = reward.collator([reward.writer.write(prompt, response)])
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[-1]
            found.append(float(head(states)[0, -1, 0]))
    return found


def width_of(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text())
    return int(config.get("text_config", config)["hidden_size"])


def backbone(kind: str, folder: Path) -> Any:
    if kind == "text":
        text_only(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(8)
        model.save_pretrained(folder)
        return model.eval()
    save_base(kind, folder)
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def head_beside(folder: Path, head: dict[str, Tensor], **_: Any) -> None:
    save_file(head, folder / "value_head.safetensors", metadata={"format": "pt"})


def pickled_beside(folder: Path, head: dict[str, Tensor], **_: Any) -> None:
    torch.save(head, folder / "value_head.bin")


def one_file(folder: Path, head: dict[str, Tensor], prefix: str = "pretrained_model.") -> None:
    path = folder / "model.safetensors"
    weights = {f"{prefix}{key}": value for key, value in load_file(path).items()}
    save_file(weights | head, path, metadata={"format": "pt"})


def two_files(folder: Path, head: dict[str, Tensor]) -> None:
    weights = {f"pretrained_model.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = [{name: weights[name] for name in names[0::2]}, {name: weights[name] for name in names[1::2]} | head]
    places: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def pickled_whole(folder: Path, head: dict[str, Tensor]) -> None:
    weights = {f"pretrained_model.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(weights | head, folder / "pytorch_model.bin")


def unprefixed(folder: Path, head: dict[str, Tensor]) -> None:
    one_file(folder, head, prefix="")


LAYOUTS = {
    "beside": head_beside,
    "pickled beside": pickled_beside,
    "one file": one_file,
    "unprefixed": unprefixed,
    "two files": two_files,
    "pickled whole": pickled_whole,
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("kind", ["text", "llava"])
def test_scores_are_the_old_modules_up_to_the_bias(kind: str, layout: str, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    model = backbone(kind, folder)
    head = ValueHead(width_of(folder), bias=0.75)
    LAYOUTS[layout](folder, {f"v_head.{key}": value for key, value in head.state_dict().items()})
    if "pickled" in layout:
        with pytest.raises(InputError, match="allow_pickle"):
            convert(folder)
    found = convert(folder, allow_pickle="pickled" in layout)
    prompts = TEXTS if kind == "text" else three_prompts()
    before = old_scores(model, head, found.reward, prompts)
    assert len({round(score, 2) for score in before}) == 3
    found.reward.save_pretrained(tmp_path / "new")
    again = RewardModel.from_pretrained(tmp_path / "new")
    after = again.get_scores(prompts, RESPONSES)
    assert again.meta.offset == 0.75 and again.meta.base == str(folder) and found.rounded == 0
    assert [score + again.meta.offset for score in after] == pytest.approx(before, abs=1e-4)
    assert after != pytest.approx(before, abs=1e-2), "the bias is no part of the new score"
    margins = [after[0] - after[1], after[1] - after[2]]
    assert margins == pytest.approx([before[0] - before[1], before[1] - before[2]], abs=1e-4)
    assert not any("bias" in key for key in load_file(tmp_path / "new" / "model.safetensors") if "score" in key)


@pytest.mark.parametrize("name", ["value_head", "score", "critic_out"])
def test_openrlhf_heads_keep_their_normalisation_outside(name: str, tmp_path: Path) -> None:
    model = backbone("text", tmp_path)
    head = ValueHead(width_of(tmp_path), bias=None)
    path = tmp_path / "model.safetensors"
    weights = {key: value for key, value in load_file(path).items() if key != "lm_head.weight"}
    save_file(weights | {f"{name}.weight": head.summary.weight.detach()}, path, metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": ["RewardModel"], "normalize_reward": True, "mean": 1.5, "std": 2.0}
    config |= {"value_head_prefix": name} if name == "critic_out" else {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    reward = convert(tmp_path).reward
    assert (reward.meta.mean, reward.meta.deviation, reward.meta.offset) == (1.5, 2.0, 0.0)
    assert reward.get_scores(TEXTS, RESPONSES) == pytest.approx(old_scores(model, head, reward, TEXTS), abs=1e-4)


def test_a_head_of_more_digits_than_its_backbone_is_rounded_and_said_so(tmp_path: Path) -> None:
    model = backbone("text", tmp_path)
    model.bfloat16().save_pretrained(tmp_path)
    head = ValueHead(width_of(tmp_path), bias=None)
    head_beside(tmp_path, {f"v_head.{key}": value for key, value in head.state_dict().items()})
    found = convert(tmp_path)
    assert found.reward.model.dtype == torch.bfloat16
    assert 1e-4 < found.rounded < 2**-8
    assert convert(tmp_path, dtype="float32").rounded == 0


def head_of(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {key: torch.ones(shape) for key, shape in shapes}


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (head_of(("v_head.summary.weight", (2, 32)), ("v_head.summary.bias", (2,))), "2 outputs"),
        (head_of(("v_head.0.weight", (32, 32)), ("v_head.2.weight", (1, 32))), "more than one layer"),
        (head_of(("v_head.summary.weight", (1, 16))), "16 numbers"),
        (head_of(("v_head.summary.bias", (1,))), "no matrix v_head.summary.weight"),
        (head_of(("v_head.summary.weight", (1, 32)), ("value_head.weight", (1, 32))), "2 value heads"),
        ({"v_head.summary.weight": torch.full((1, 32), float("nan"))}, "no numbers"),
    ],
)
def test_heads_that_cannot_be_kept_are_refused_by_name(head: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    text_only(tmp_path)
    head_beside(tmp_path, head)
    with pytest.raises(InputError, match=said):
        convert(tmp_path)


def test_what_is_no_value_head_checkpoint_is_refused(tmp_path: Path) -> None:
    text_only(tmp_path / "base")
    with pytest.raises(InputError, match="no value head"):
        convert(tmp_path / "base")
    text_only(tmp_path / "done", outputs=1)
    with pytest.raises(InputError, match="already"):
        convert(tmp_path / "done")
    text_only(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="merge it"):
        convert(tmp_path / "adapter")
    text_only(tmp_path / "broken")
    (tmp_path / "broken" / "value_head.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        convert(tmp_path / "broken")
    with pytest.raises(InputError, match="no such folder"):
        convert(tmp_path / "nowhere")
