"""The scalar head: the same score alone, in a batch, padded on either side, and after a reload; refusals by name."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, LlamaConfig, LlamaForCausalLM

from probes.inputs import InputError, Turn
from rewardmodels.heads import classifier_class, last_real_tokens
from rewardmodels.model import RewardMeta, RewardModel, as_turns
from rewardmodels.records import Response
from tests.probes import hooked, processors
from tests.probes.hooked import picture
from tests.rewardmodels.small import base_folder, reward_model, save_base, three_prompts

NATIVE = ("gemma3", "qwen3_5")
FAST = (
    "llava",
    "qwen2_5_vl",
    "idefics3",
    *NATIVE,
    "qwen3_vl_moe",
    "internvl",
    "mistral3",
    "paligemma",
    "llava_onevision",
)
WITHOUT_BACKBONE = ("llama4", "nemotron_h_omni", "pp_chart2table")
LOSES_ITS_TEMPLATE = "chameleon"
"""Its processor leaves its chat template behind when it is saved, so that a saved base has none."""
ONE_SIZE = "got_ocr2"
"""Its processor's number of image tokens is fixed, and not saved: a tiny tower's has to be set on it."""
SLOW = tuple(
    family
    for family in (*hooked.FAMILIES, *hooked.FURTHER)
    if family not in (*FAST, *WITHOUT_BACKBONE, LOSES_ITS_TEMPLATE, ONE_SIZE)
)
FAMILIES = [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)]
RESPONSES = ["a cat", "the dog there", "owl"]


def close(first: list[float], second: list[float]) -> bool:
    return bool(torch.allclose(torch.tensor(first), torch.tensor(second), rtol=1e-5, atol=1e-5))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_the_base_models_last_state_times_the_head(family: str, tmp_path: Path) -> None:
    base = save_base(family, tmp_path)
    model = RewardModel.from_base(tmp_path)
    conversation = model.writer.write(three_prompts()[0], RESPONSES[0])
    with torch.no_grad():
        states = base.model(**model.collator([conversation])).last_hidden_state[0]
    score = model.get_scores(three_prompts()[:1], RESPONSES[:1])[0]
    head = model.model.score.weight[0]
    assert score == pytest.approx(float(states[-1] @ head), abs=1e-5)
    assert abs(score - float(states[-2] @ head)) > 1e-4, "another token's state would pass as well"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_the_same_alone_in_a_batch_and_padded_on_either_side(family: str) -> None:
    model = reward_model(family)
    alone = [model.get_scores([prompt], [text])[0] for prompt, text in zip(three_prompts(), RESPONSES, strict=True)]
    assert len({round(score, 3) for score in alone}) == 3
    assert close(alone, model.get_scores(three_prompts(), RESPONSES))
    left = RewardModel(model.model, model.processor, padding_side="left")
    assert close(alone, left.get_scores(three_prompts(), RESPONSES))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_comes_back_to_the_same_scores(family: str, tmp_path: Path) -> None:
    model = reward_model(family)
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    saved, loaded = model.model.state_dict(), again.model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(weight, loaded[name]) for name, weight in saved.items())
    # Weights that lie elsewhere in memory may be multiplied in another order: the last bit is not the checkpoint's.
    assert close(again.get_scores(three_prompts(), RESPONSES), model.get_scores(three_prompts(), RESPONSES))
    assert again.meta == model.meta
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(model.model).__name__]


@pytest.mark.parametrize("family", NATIVE)
def test_a_native_checkpoint_loads_in_transformers_without_this_package(family: str, tmp_path: Path) -> None:
    model = reward_model(family)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py")), "a native class needs no code beside it"
    native = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(native).__module__.startswith("transformers.models.")
    inputs = AutoProcessor.from_pretrained(tmp_path)(
        text=[model.writer.write(three_prompts()[0], RESPONSES[0]).text],
        images=[[picture(seed=0)]],
        return_tensors="pt",
        add_special_tokens=False,
    )
    with torch.no_grad():
        score = float(native(**inputs).logits)
    assert close([score], model.get_scores(three_prompts()[:1], RESPONSES[:1]))


RELOAD = """
import sys
sys.meta_path.insert(0, type("Refuse", (), {"find_spec": staticmethod(
    lambda name, *_: (_ for _ in ()).throw(ImportError(name)) if name.split(".")[0] in ("rewardmodels", "probes")
    else None)}))
import torch
from transformers import AutoModelForSequenceClassification
inputs = torch.load(sys.argv[2], weights_only=True)
for _ in range(2):
    model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
    with torch.no_grad():
        print(repr(float(model(**inputs).logits)))
"""


@pytest.mark.slow
def test_another_familys_checkpoint_loads_where_this_package_cannot_be_imported(tmp_path: Path) -> None:
    model = reward_model("llava")
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    torch.save(model.inputs([model.writer.write(three_prompts()[0], RESPONSES[0])]), tmp_path / "inputs.pt")
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-I", "-c", RELOAD, str(folder), str(tmp_path / "inputs.pt")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    expected = model.get_scores(three_prompts()[:1], RESPONSES[:1])[0]
    assert close([float(line) for line in ran.stdout.split()], [expected, expected])


def test_the_copy_of_the_head_is_never_run_here(tmp_path: Path) -> None:
    reward_model("llava").save_pretrained(tmp_path)
    (tmp_path / "reward_head.py").write_text("raise SystemExit('run')")
    assert RewardModel.from_pretrained(tmp_path).sees
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "other.Class"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="trust_remote_code"):
        RewardModel.from_pretrained(tmp_path)


def test_images_text_and_order_matter() -> None:
    model = reward_model("llava")
    one, two = picture(seed=0), picture(seed=1)
    scores = model.get_scores(
        [
            as_turns("1 <image> 2 <image> which?", [one, two]),
            as_turns("1 <image> 2 <image> which?", [two, one]),
            as_turns("which?"),
        ],
        ["a cat"] * 3,
    )
    assert len({round(score, 4) for score in scores}) == 3
    assert scores[2] == pytest.approx(model.get_score("which?", "a cat"), abs=1e-5)


def test_compare_and_rank_agree_with_scores() -> None:
    model = reward_model("llava")
    image = picture(seed=0)
    scores = [model.get_score("What is this?", text, [image]) for text in RESPONSES]
    comparison = model.compare("What is this?", RESPONSES[0], RESPONSES[1], [image])
    assert close([comparison.first, comparison.second], scores[:2])
    assert comparison.margin == comparison.first - comparison.second
    assert comparison.probability == pytest.approx(torch.sigmoid(torch.tensor(comparison.margin)).item())
    assert model.compare("What is this?", RESPONSES[1], RESPONSES[0], [image]).margin == pytest.approx(
        -comparison.margin, abs=1e-6
    )
    ranking = model.rank("What is this?", RESPONSES, [image])
    assert list(ranking.order) == sorted(range(3), key=lambda place: -scores[place])
    assert model.rank("What is this?", ["owl", "owl"], [image]).order == (0, 1)


def test_several_turns_and_a_system_message_are_rendered() -> None:
    model = reward_model("qwen2_5_vl")
    turns = (
        Turn("user", "What is this?", as_turns("", [picture(seed=0)])[0].images),
        Turn("assistant", "a cat"),
        Turn("user", "Sure?"),
    )
    text = model.writer.write(turns, "yes").text
    assert text.index("a cat") < text.index("Sure?") < text.index("yes")
    assert model.get_scores([turns], ["yes"])[0] != model.get_scores([turns[:1]], ["yes"])[0]


def test_the_last_real_token_whatever_the_padding() -> None:
    ids = torch.tensor([[5, 6, 0, 0], [0, 0, 5, 6], [5, 6, 7, 0]])
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert last_real_tokens(ids, None, 0).tolist() == [1, 3, 2]
    assert last_real_tokens(ids, mask, 0).tolist() == [1, 3, 3], "a real token may have the padding's id"
    assert last_real_tokens(ids, None, None).tolist() == [3, 3, 3]


def test_the_heads_draw_depends_on_its_seed_only() -> None:
    folder = base_folder("llava")
    first, again, other = (RewardModel.from_base(folder, seed=seed).model.score.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    wide = torch.nn.Linear(4095, 1, bias=False)
    holder = torch.nn.Module()
    holder.score = wide
    from rewardmodels.loading import draw_head

    draw_head(holder, 0)
    assert float(wide.weight.std()) == pytest.approx(1 / 4096, rel=0.05)


def text_only(folder: Path, outputs: int | None = None) -> Path:
    tokenizer = processors.build_processor("llava").tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any
    if outputs is None:
        model = LlamaForCausalLM(config)
    else:
        config.num_labels = outputs
        model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_text_only_base_scores_text_and_refuses_to_see(tmp_path: Path) -> None:
    model = RewardModel.from_base(text_only(tmp_path))
    assert not model.sees
    assert "text only" in repr(model)
    assert close(
        model.get_scores([as_turns("Hello"), as_turns("Good day to you")], ["yes", "no it is not"]),
        [model.get_score("Hello", "yes"), model.get_score("Good day to you", "no it is not")],
    )
    with pytest.raises(InputError, match="reads text only"):
        model.get_score("What is this?", "a cat", [picture(seed=0)])


def test_a_head_with_two_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 outputs"):
        RewardModel.from_pretrained(text_only(tmp_path, outputs=2))


def test_a_base_model_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reward train"):
        RewardModel.from_pretrained(base_folder("llava"))
    with pytest.raises(InputError, match="no such folder"):
        RewardModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("family", WITHOUT_BACKBONE)
def test_a_family_without_a_backbone_class_is_refused_by_name(family: str) -> None:
    with pytest.raises(InputError, match="no backbone of its own"):
        RewardModel.from_base(base_folder(family))


def test_a_base_that_lost_its_chat_template_is_refused() -> None:
    with pytest.raises(InputError, match="set its chat_template"):
        RewardModel.from_base(base_folder(LOSES_ITS_TEMPLATE))


def test_images_of_all_rows_go_in_one_list_where_the_processor_wants_that() -> None:
    saved = RewardModel.from_base(base_folder(ONE_SIZE))
    saved.processor.num_image_tokens = 16
    with torch.no_grad():
        saved.model.score.weight.mul_(20)
    prompts = three_prompts()
    alone = [saved.get_score(prompt, response) for prompt, response in zip(prompts, RESPONSES, strict=True)]
    assert len({round(score, 3) for score in alone}) == 3
    assert close(alone, saved.get_scores(prompts, RESPONSES))


def test_rows_that_would_change_each_other_are_scored_alone() -> None:
    model = reward_model("hunyuan_vl")
    prompts = three_prompts()
    alone = [model.get_score(prompt, response) for prompt, response in zip(prompts, RESPONSES, strict=True)]
    assert len({round(score, 3) for score in alone}) == 3
    assert close(alone, model.get_scores(prompts, RESPONSES, batch_size=3))
    conversations = [model.writer.write(prompt, text) for prompt, text in zip(prompts, RESPONSES, strict=True)]
    with pytest.raises(InputError, match="numbers images over the whole batch"):
        model.collator(conversations)


def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    reward_model("llava").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"score\.weight"):
        RewardModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("prompt", "response", "images", "why"),
    [
        ("What?", " ", [], "response is empty"),
        ("<image> What?", "a cat", [], "marks"),
        ("What?", "an <image> of a cat", [picture(seed=0)], "mark"),
        ((), "a cat", [], "prompt is empty"),
        ((Turn("assistant", "hello"),), "a cat", [], "ends in the assistant"),
        ((Turn("robot", "hello"),), "a cat", [], "role"),
        ("What?", "a cat", [b"no image"], "no image"),
        ("What?", "cat " * 4000, [picture(seed=0)], "tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(prompt: Any, response: str, images: list[Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        reward_model("llava").get_score(prompt, response, images)


def test_a_score_that_is_no_number_is_refused() -> None:
    model = reward_model("llava")
    with torch.no_grad():
        model.model.score.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="response 0: its score is nan"):
        model.get_score("Hello", "yes")


def test_padding_in_which_responses_end_is_replaced(tmp_path: Path) -> None:
    save_base("llava", tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    conversation = RewardModel.from_base(tmp_path).writer.write(as_turns("Hello"), "yes").text
    last = processor.tokenizer(conversation, add_special_tokens=False)["input_ids"][-1]
    processor.tokenizer.pad_token = processor.tokenizer.convert_ids_to_tokens(last)
    processor.save_pretrained(tmp_path)
    model = RewardModel.from_base(tmp_path)
    assert model.model.config.get_text_config().pad_token_id != last
    assert close(
        model.get_scores(three_prompts(), RESPONSES),
        [model.get_scores([prompt], [text])[0] for prompt, text in zip(three_prompts(), RESPONSES, strict=True)],
    )


def test_a_processor_that_pads_with_the_responses_end_is_refused() -> None:
    model = reward_model("llava")
    text = model.writer.write(as_turns("Hello"), "yes").text
    last = model.processor.tokenizer(text, add_special_tokens=False)["input_ids"][-1]
    model.model.config.get_text_config().pad_token_id = last
    with pytest.raises(InputError, match="also the padding"):
        RewardModel(model.model, model.processor).get_score("Hello", "yes")


def test_responses_may_hold_images_of_their_own() -> None:
    model = reward_model("llava")
    image = as_turns("", [picture(seed=1)])[0].images
    plain, drawn = model.get_scores([as_turns("Draw a cat")] * 2, [Response("here"), Response("here", image)])
    assert abs(plain - drawn) > 1e-4


def test_classifier_classes_are_made_once_and_named_as_transformers_would() -> None:
    from transformers import LlavaConfig

    made = classifier_class(LlavaConfig)
    assert made is classifier_class(LlavaConfig)
    assert made.__name__ == "LlavaForSequenceClassification"
    assert issubclass(made, torch.nn.Module)


def test_meta_survives_and_unknown_keys_are_ignored(tmp_path: Path) -> None:
    model = reward_model("llava")
    model.meta = RewardMeta(base="b", template="t", mean=1.5, deviation=2.0, data="d")
    model.save_pretrained(tmp_path)
    path = tmp_path / "reward_meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": 1}))
    assert RewardModel.from_pretrained(tmp_path).meta == model.meta


def test_meta_of_a_checkpoint_on_the_hub_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = reward_model()
    model.meta = RewardMeta(mean=0.25, offset=2.0)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert RewardModel.from_pretrained("someone/reward").meta == model.meta
    (tmp_path / "reward_meta.json").write_text("{half")
    with pytest.raises(InputError, match=r"'someone/reward': reward_meta.json cannot be read"):
        RewardModel.from_pretrained("someone/reward")
