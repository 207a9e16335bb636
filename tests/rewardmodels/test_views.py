"""What a proxy sees: as many white images, none, or another prompt's; nothing else of the prompt changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.inputs import InputError, Turn
from rewardmodels.batching import PairCollator
from rewardmodels.model import as_turns
from rewardmodels.views import PAPER_BLANK, PAPER_VIEW, blanked, partners, viewed, with_images_of, without_images
from tests.probes.hooked import picture
from tests.rewardmodels.drawn import drawn_pairs
from tests.rewardmodels.small import reward_model, three_prompts


def images(turns: tuple[Turn, ...]) -> list[np.ndarray]:
    return [np.asarray(image.open()) for turn in turns for image in turn.images]


def test_blank_images_are_white_and_of_the_same_size() -> None:
    for prompt in three_prompts():
        blank = blanked(prompt)
        assert [turn.text for turn in blank] == [turn.text for turn in prompt]
        assert [image.shape for image in images(blank)] == [image.shape for image in images(prompt)]
        assert all((image == 255).all() for image in images(blank))
    assert images(blanked(three_prompts()[0], PAPER_BLANK))[0].shape == (224, 224, 3)


def test_the_papers_white_image_has_its_size_whatever_it_stands_for() -> None:
    prompts = three_prompts()
    paper, own = (viewed(prompts, ["a", "b", "c"], view) for view in (PAPER_VIEW, "blank"))
    for place, prompt in enumerate(prompts):
        shown = images(paper(place))
        assert [image.shape for image in shown] == [(224, 224, 3)] * len(images(prompt))
        assert all((image == 255).all() for image in shown)
        assert [image.shape for image in images(own(place))] == [image.shape for image in images(prompt)]


def test_removed_images_leave_no_marks_and_other_words_alone() -> None:
    removed = without_images(three_prompts()[1])
    assert removed == (Turn("user", "1 2 which of them?"),)
    spaced = (Turn("user", "two  spaces\nstay"),)
    assert without_images(spaced) == spaced
    listed = as_turns(
        "<image>\nWhich?\n  A. cat\n  B. dog <image>\nSay<image>one.", [picture(seed=k) for k in range(3)]
    )
    assert without_images(listed) == (Turn("user", "Which?\n  A. cat\n  B. dog\nSay one."),)
    unmarked = as_turns("def f():\n    pass", [picture(seed=0)])
    assert without_images(unmarked) == (Turn("user", "def f():\n    pass"),), "lines belong to the words"


def test_shuffled_images_are_another_prompts_in_the_same_places() -> None:
    first, second = as_turns("a <image> b", [picture(seed=0)]), as_turns("<image> c", [picture(seed=1)])
    swapped = with_images_of(first, second)
    assert swapped[0].text == first[0].text
    assert np.array_equal(images(swapped)[0], images(second)[0])
    with pytest.raises(InputError, match="1 image and the other one 2"):
        with_images_of(first, three_prompts()[1])


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=30), st.integers(0, 5))
def test_partners_have_as_many_images_and_another_cluster(rows: list[tuple[int, str]], seed: int) -> None:
    counts, clusters = [count for count, _ in rows], [cluster for _, cluster in rows]
    found = partners(counts, clusters, seed)
    for place, other in enumerate(found):
        candidates = [at for at in range(len(rows)) if counts[at] == counts[place] and clusters[at] != clusters[place]]
        if counts[place] == 0 or not candidates:
            assert other is None
        else:
            assert other in candidates
    assert found == partners(counts, clusters, seed)


def test_views_are_made_by_name_and_refused_by_name() -> None:
    pairs = drawn_pairs(6)
    prompts, clusters = [pair.prompt for pair in pairs], [pair.cluster for pair in pairs]
    assert (images(viewed(prompts, clusters, "blank")(2))[0] == 255).all()
    assert images(viewed(prompts, clusters, "removed")(2)) == []
    shuffled = images(viewed(prompts, clusters, "shuffled", seed=1)(2))[0]
    assert not np.array_equal(shuffled, images(prompts[2])[0])
    assert any(np.array_equal(shuffled, images(prompt)[0]) for prompt in prompts)
    with pytest.raises(InputError, match="blank, removed, shuffled"):
        viewed(prompts, clusters, "grey")
    with pytest.raises(InputError, match="no other of as many images"):
        viewed(prompts, ["same"] * 6, "shuffled")


def test_removed_images_leave_no_tokens_and_blank_ones_leave_all() -> None:
    reward, pairs = reward_model("llava"), drawn_pairs(4)
    places = [{"index": place} for place in range(4)]
    proxies = {view: PairCollator(reward, pairs, view)(places)["proxy"] for view in ("blank", "removed")}
    lengths = {view: inputs["input_ids"].shape[1] for view, inputs in proxies.items()}
    whole = PairCollator(reward, pairs)(places)["input_ids"].shape[1]
    assert lengths["blank"] == whole > lengths["removed"]
    assert "pixel_values" not in proxies["removed"]
