"""One look and one blanked image, against the model called directly; and bad input in one line each."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.inputs import InputError
from probes.interventions import blank_effects
from probes.model import Question
from studies.explorer.examples import images_of, read_examples
from studies.explorer.looking import MAX_IMAGES, Looked, blank, look, open_images, plain_question, prompt_of
from tests.probes.hooked import hooked
from tests.studies.explorer.pages import save_benchmark
from tests.studies.explorer.run_factory import make_image


@pytest.fixture(scope="module")
def looked() -> Looked:
    images = [make_image(index) for index in range(3)]
    return look(hooked("llava"), images, prompt_of("Which image shows the red ball?", 3))


def test_a_look_holds_what_the_model_gives(looked: Looked) -> None:
    model = hooked("llava")
    trace = model.trace(looked.images, looked.prompt)
    assert looked.answer == trace.answer == model.generate(looked.images, looked.prompt)
    assert np.allclose(looked.shown.factors["paper"], trace.factors, atol=1e-6)
    assert looked.shown.focus["paper"] == trace.focus(last=3)
    for index, scores in enumerate(looked.shown.maps["paper"]):
        assert scores is not None
        assert np.allclose(scores[-1].reshape(4, 4), trace.map(image=index), atol=1e-6)
    assert set(looked.shown.factors) == {"paper", "predicting"}
    assert not np.allclose(looked.shown.factors["paper"], looked.shown.factors["predicting"])
    assert looked.shown.pairwise is not None and looked.shown.pairwise.shape == (3, 4, 4)


@pytest.mark.parametrize("image", [0, 1, 2])
def test_blanking_gives_the_drop_of_the_first_answer(looked: Looked, image: int) -> None:
    model = hooked("llava")
    blanked = blank(model, looked, image)
    images = [
        Image.new("RGB", each.size, (128, 128, 128)) if at == image else each for at, each in enumerate(looked.images)
    ]
    before, after = (
        float(model.log_probability([Question(each, looked.prompt)], [looked.answer_ids]).log_probability[0])
        for each in (looked.images, images)
    )
    assert blanked.drop == pytest.approx(before - after, abs=1e-4) and abs(blanked.drop) > 1e-3
    assert blanked.looked.answer == model.generate(images, looked.prompt)
    assert not np.allclose(blanked.looked.shown.factors["paper"], looked.shown.factors["paper"])


def test_blanking_gives_the_numbers_of_an_audit(looked: Looked) -> None:
    model = hooked("llava")
    audited = blank_effects(model, Question(looked.images, looked.prompt), looked.answer_ids)
    drops = [blank(model, looked, image).drop for image in range(len(looked.images))]
    assert drops == pytest.approx(audited, abs=1e-5)


def test_blanking_no_image_is_refused(looked: Looked) -> None:
    with pytest.raises(InputError, match="no image 4"):
        blank(hooked("llava"), looked, 3)


@pytest.mark.parametrize(
    ("question", "images", "message"),
    [
        ("", 1, "empty"),
        ("  <image> ", 1, "empty"),
        ("<image> what?", 2, "1 <image> mark for 2"),
        ("x" * 5000, 1, "shorten"),
    ],
)
def test_bad_questions(question: str, images: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prompt_of(question, images)
    assert "\n" not in str(caught.value)


def test_prompts() -> None:
    assert prompt_of("What?", 2) == "1 <image> 2 <image> What?"
    assert prompt_of("What?", 2, numbered=False) == "What?"
    assert prompt_of("<image> or <image> ?", 2) == "<image> or <image> ?"
    assert plain_question(prompt_of("What?", 3), 3) == "What?"
    assert plain_question("<image> or <image> ?", 2) == "<image> or <image> ?"


def test_bad_images_are_named_by_place_and_without_their_folder(tmp_path: Path) -> None:
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    make_image(0).save(good)
    broken.write_bytes(good.read_bytes()[:60])
    with pytest.raises(InputError, match="Image 2 cannot be used") as caught:
        open_images([str(good), str(broken)])
    assert str(tmp_path) not in str(caught.value) and "broken.png" in str(caught.value)
    for files, message in (
        (None, "no image"),
        ([], "no image"),
        ([str(good)] * (MAX_IMAGES + 1), "17 images are too many"),
    ):
        with pytest.raises(InputError, match=message):
            open_images(files)


def test_examples_take_turns_between_tasks(tmp_path: Path) -> None:
    examples = read_examples(save_benchmark(tmp_path, 8), most=3)
    assert [example.task for example in examples] == ["content", "needle", "content"]
    assert all(example.question == "Which image shows the red ball?" for example in examples)
    assert len(images_of(examples, 0)) == 2
    with pytest.raises(InputError, match="no example 4"):
        images_of(examples, 3)
    assert read_examples(tmp_path / "absent") == []
