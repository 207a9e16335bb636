"""Prompt text, the template's tail, answers behind it, and row sets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.encoding import Encoder, row_sets
from probes.inputs import InputError
from probes.prompts import PromptWriter, Question
from tests.probes import processors
from tests.probes.hooked import FAMILIES, hooked, picture

IMAGES_FIRST = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for block in message['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for block in message['content'] | selectattr('type', 'equalto', 'text') %}{{ block['text'] }}{% endfor %}"
    "{{ ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
STRINGS_ONLY = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TAILS = {
    "llava": " ASSISTANT:",
    "qwen2_5_vl": "<|im_end|>\n<|im_start|>assistant\n",
    "idefics3": "<end_of_utterance>\nAssistant:",
    "smolvlm": "<end_of_utterance>\nAssistant:",
    "gemma3": "<end_of_turn>\n<start_of_turn>model\n",
}


def llava_with(template: str | None) -> Any:
    processor = processors.build_processor("llava")
    processor.chat_template = template
    return processor


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["1 <image> 2 <image> Which?", "Which?", "Is it <image> or <image>"])
def test_the_tail_is_what_follows_the_users_last_content(family: str, text: str) -> None:
    prompt = PromptWriter(processors.build_processor(family)).write(Question([picture(), picture()], text))
    assert prompt.tail == TAILS[family]
    assert prompt.text.endswith(prompt.tail)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tail_in_tokens_is_not_a_fixed_number(family: str) -> None:
    model = hooked(family)
    encoded = model.encode([Question([picture()], "<image> Which?"), Question([picture()], "What is on <image>")])
    tail = encoded.tail_lengths[0]
    assert encoded.tail_lengths == (tail, tail)
    ids = encoded.inputs["input_ids"][0, encoded.prompt_stop - tail : encoded.prompt_stop]
    assert model.processor.tokenizer.decode(ids) == TAILS[family]


def test_tails_differ_between_templates() -> None:
    lengths = {hooked(family).encode([Question([picture()], "Which?")]).tail_lengths for family in FAMILIES}
    assert len(lengths) > 1


def test_marks_keep_their_places() -> None:
    prompt = PromptWriter(processors.build_processor("llava")).write(
        Question([picture(32, 32), picture(64, 32)], "1 <image> 2 <image> Which?")
    )
    assert prompt.text == "USER: 1 <image> 2 <image> Which? ASSISTANT:"
    assert [image.size for image in prompt.images] == [(32, 32), (64, 32)]


def test_without_marks_images_come_first() -> None:
    prompt = PromptWriter(processors.build_processor("llava")).write(Question([picture(), picture()], "Which?"))
    assert prompt.text == "USER: <image><image>Which? ASSISTANT:"


@pytest.mark.parametrize("template", [IMAGES_FIRST, STRINGS_ONLY])
def test_templates_that_move_images_or_take_strings_still_keep_the_marks(template: str) -> None:
    writer = PromptWriter(llava_with(template))
    text = writer.write(Question([picture(), picture()], "1 <image> 2 <image> Which?")).text
    assert "1 <image> 2 <image> Which?" in text
    ends = writer.write(Question([picture(), picture()], "one <image> two <image>"))
    assert ends.text.endswith("one <image> two <image>" + ends.tail)


def test_a_reply_follows_the_templates_own_white_space() -> None:
    processor = processors.build_processor("llava")
    encoder = Encoder(processors.build_config("llava", processor), processor)
    prompt = PromptWriter(processor).write(Question([picture()], "Which?"))
    assert prompt.gap == " "
    ids = encoder.answer_ids(prompt, "image 1")
    assert processor.tokenizer.decode(list(ids)) == " image 1"
    assert encoder.answer_ids(prompt, " image 1\n") == ids == encoder.answer_ids(prompt, ids)
    assert PromptWriter(processors.build_processor("qwen2_5_vl")).write(Question([picture()], "Which?")).gap == ""


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no such thing') }}", "no such thing"),
        ("{% for message in messages %}{{ message['role'] }}{% endfor %}", "order"),
    ],
)
def test_unusable_templates_are_refused(template: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        PromptWriter(llava_with(template)).write(Question([picture()], "1 <image> Which?"))
    assert "\n" not in str(caught.value)


def test_a_template_whose_ending_depends_on_the_text_is_refused() -> None:
    template = IMAGES_FIRST.replace(
        "ASSISTANT:", "{{ 'YES:' if 'yes' in messages[0]['content'][-1]['text'] else 'NO:' }}"
    )
    with pytest.raises(InputError, match="ends this question differently"):
        PromptWriter(llava_with(template)).write(Question([picture()], "yes or no?"))


@given(
    words=st.lists(st.sampled_from(["cat", "red ball?", " ", "\n", "é", "1 "]), min_size=1, max_size=5),
    marks=st.integers(0, 3),
    family=st.sampled_from(["llava", "qwen2_5_vl", "gemma3"]),
)
def test_row_sets_split_the_tokens_behind_the_last_image(words: list[str], marks: int, family: str) -> None:
    text = "<image>".join(["a ", *["then "] * (marks - 1), " ".join(words)] if marks else [" ".join(words) + "."])
    if not text.replace("<image>", "").strip():
        return
    question = Question([picture()] * max(marks, 1), text)
    encoded = hooked(family).encode([question], ["two words"])
    sets = {name: set(mask[0].nonzero().flatten().tolist()) for name, mask in row_sets(encoded, _NAMES).items()}
    stop, width = encoded.prompt_stop, encoded.columns
    tail = set(range(stop - encoded.tail_lengths[0], stop))
    assert sets["answer"] == set(range(stop, width))
    assert sets["predicting"] == {row - 1 for row in sets["answer"]}
    assert sets["paper"] == sets["after"] - tail
    assert min(sets["after"]) == encoded.spans[0][-1].stop
    assert tail <= sets["after"] and sets["answer"] <= sets["paper"]


_NAMES = ("paper", "predicting", "answer", "after")


def test_rows_ignore_padding_on_both_sides() -> None:
    model = hooked("llava")
    asked = [Question([picture()], "Which?"), Question([picture(), picture()], "Which image shows the red ball?")]
    encoded = model.encode(asked, ["1", "the second image"])
    real = encoded.inputs["attention_mask"].bool()
    assert not real[0, 0] and not real[0, -1]
    for mask in row_sets(encoded, _NAMES).values():
        assert not (mask & ~real).any()
        assert mask.any(dim=1).all()


def test_unknown_rows_and_a_lonely_anchor_are_refused() -> None:
    encoded = hooked("llava").encode([Question([picture()], "Which?")])
    with pytest.raises(InputError, match="unknown rows 'papers'"):
        row_sets(encoded, ["papers"])
    with pytest.raises(InputError, match="only one image"):
        row_sets(encoded, ["anchor"])
