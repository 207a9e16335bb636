"""Every family of transformers' image-text-to-text mapping that is read: as its own eager attentions have it.

Each family's models and forwards are made once and shared by all its tests; wrong formulas are tried on the calls of
the forward that was recorded.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from probes.attention import attention_layers
from probes.axes import AXES, AXIS_NOTES, ENCODER_TEXTS
from probes.decoder import find_decoder
from probes.families import FAMILIES, RESAMPLED, UNBATCHED, VIDEOS
from probes.families.support import BY_HAND, CROSSING, HALF_REFUSED, MASKS, REFUSED, TERMS, VERIFIED, table
from probes.inputs import InputError
from probes.spans import find_image_spans
from tests.probes.dense_reference import TOLERANCE
from tests.probes.zoo.mutating import MUTATIONS, terms, without_rotation
from tests.probes.zoo.replaying import mask_kinds
from tests.probes.zoo.verifying import MODEL_TYPES, Compared, Family, model_without_weights, numbers, padding_of

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
SHARP = 0.8
"""Largest share of a uniform row's entropy: flatter attention would pass any formula."""
OTHER_DECODERS = ("llava_dots1", "llava_gemma2", "llava_gpt_oss", "llava_nemotron_h")
"""Decoders that no entry of the mapping has under a LLaVA: experts, soft caps, attention sinks, Mamba layers."""
NEW_TOKENS = 4
PAST_THE_WINDOW = 14
"""More than any window, which is 8; those that slide over the prompt as well are cut from the first step on."""
HALVES = [(torch.bfloat16, 1e-3), (torch.float16, 1e-4)]
"""Largest errors of factors between 0.01 and 0.1, against attentions that are rounded themselves."""
WITHOUT_ROTATION = frozenset(
    [
        "blip-2",
        "florence2",
        "glm5_next",
        "inkling2",
        "inkling_mm_model",
        "instructblip",
        "instructblipvideo",
        "kosmos-2",
        "kosmos-2.5",
        "llava_nemotron_h",
        "nemotron_h_omni",
        "pix2struct",
        "pp_formulanet",
        "udop",
        "vision-encoder-decoder",
    ]
)
"""Positions are learned, added, relative biases, or left to state-space layers."""


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    yield Family(request.param)


every_family = pytest.mark.parametrize("family", sorted({*VERIFIED, *OTHER_DECODERS}), indirect=True, scope="module")


def mutated(family: Family, name: str, compared: Compared) -> float:
    """How far a wrong formula takes the factors from the family's own eager attentions."""
    inputs = family.inputs(MUTATIONS[name].padded)
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[name].patch(patch, compared.catcher.calls)
        wrong = numbers(compared.catcher.replay(family.recorder(inputs), padding_of(inputs)))
    return float(np.abs(wrong - compared.reference).max())


@every_family
def test_factors_equal_the_familys_own_eager_attentions(family: Family) -> None:
    for padded in (False, True):
        found = family.compare(padded)
        assert found.recorded.shape == found.reference.shape and np.isfinite(found.recorded).all()
        assert found.error < TOLERANCE
        assert found.entropy < SHARP or family.entry.dull
        again = family.recorder(family.inputs(padded))
        replayed = numbers(found.catcher.replay(again, padding_of(family.inputs(padded))))
        assert np.array_equal(replayed, found.recorded)


@every_family
def test_every_wrong_formula_shows(family: Family) -> None:
    for name, mutation in MUTATIONS.items():
        compared = family.compare(mutation.padded)
        if mutation.applies(compared.catcher.calls):
            assert mutated(family, name, compared) > 100 * TOLERANCE, name


@every_family
def test_factors_depend_on_the_rotation_where_there_is_one(family: Family) -> None:
    inputs = family.inputs(padded=False)
    recorder = family.recorder(inputs)
    with torch.no_grad(), without_rotation(find_decoder(family.model)) as asked, recorder:
        family.model(**inputs, use_cache=False)
    assert bool(asked) != (family.model_type in WITHOUT_ROTATION)
    if asked:
        moved = np.abs(numbers(recorder.factors("rows")) - family.compare(padded=False).reference)
        assert moved.max() > 100 * TOLERANCE


@every_family
def test_masks_and_terms_that_act_are_those_of_the_table(family: Family) -> None:
    calls = family.compare(padded=False).catcher.calls
    kinds = mask_kinds(calls)
    assert ("cross" in kinds) == (family.model_type in CROSSING) == bool(family.entry.cross_spans)
    if family.model_type not in OTHER_DECODERS:
        assert ", ".join(sorted(kinds - {"cross"})) == MASKS.get(family.model_type, "")
        assert ", ".join(sorted(terms(calls))) == TERMS.get(family.model_type, "")


@every_family
def test_decode_steps_with_a_cache_equal_eager_ones(family: Family) -> None:
    """In a padded batch, whose steps are read one by one, and alone, where they are put off if they can be."""
    # An encoder-decoder's generation puts a start before prompts without padding, which shifts their rows.
    alone = () if getattr(family.model.config, "is_encoder_decoder", False) else (False,)
    for padded in (True, *alone):
        recorded, reference = family.compare_generated(NEW_TOKENS, padded)
        assert recorded.shape == reference.shape
        assert np.abs(recorded - reference).max() < TOLERANCE
        assert np.abs(recorded - reference[..., ::-1]).max() > 100 * TOLERANCE


def test_a_window_that_slides_over_generated_tokens_only_leaves_the_prompts_columns_in_place() -> None:
    """Alone: past the window, this family's own mask shows padding, whose keys differ by implementation."""
    recorded, reference = Family("unlimited_ocr").compare_generated(PAST_THE_WINDOW, padded=False)
    assert np.abs(recorded - reference).max() < TOLERANCE


@every_family
def test_half_precision_stays_near_eager_attentions_of_the_same_type(family: Family) -> None:
    for dtype, tolerance in HALVES:
        if family.model_type in HALF_REFUSED:
            with pytest.raises(RuntimeError, match=HALF_REFUSED[family.model_type]):
                family.compare_in(dtype)
            continue
        recorded, reference = family.compare_in(dtype)
        assert np.abs(recorded - reference).max() < tolerance
        assert np.abs(recorded - reference[..., ::-1]).max() > 10 * tolerance or family.entry.dull


def test_soft_caps_sinks_biases_and_every_kind_of_mask_are_among_what_is_tried() -> None:
    assert terms(Family("llava_gemma2").compare(padded=False).catcher.calls) == {"soft cap"}
    assert terms(Family("llava_gpt_oss").compare(padded=False).catcher.calls) == {"sinks"}
    assert {each for kinds in TERMS.values() for each in kinds.split(", ")} == {"position bias", "sinks"}
    kinds = {each for kinds in MASKS.values() for each in kinds.split(", ")}
    assert kinds == {"bidirectional", "chunked", "sliding", "sparse"}


def test_layers_keep_their_numbers_where_others_without_attention_stand_between_them() -> None:
    for model_type, layers in (("llava_nemotron_h", [1, 3]), ("qwen3_5", [1, 2]), ("glm5_next", [1, 2])):
        assert attention_layers(model_without_weights(model_type)) == layers


def test_every_entry_of_the_mapping_is_verified_or_refused() -> None:
    assert set(MODEL_TYPES) == VERIFIED | set(REFUSED)
    assert not VERIFIED & set(REFUSED)
    assert len(VERIFIED) >= 93
    assert {*MASKS, *TERMS, *CROSSING, *HALF_REFUSED} <= VERIFIED


def test_the_table_of_the_docs_is_this_one() -> None:
    assert (ROOT / "docs" / "families.md").read_text() == table()
    assert set(FAMILIES) - {"smolvlm"} <= VERIFIED
    assert set(BY_HAND) == VERIFIED - set(FAMILIES) - set(AXES) - set(ENCODER_TEXTS)
    assert {*AXES, *ENCODER_TEXTS} == set(CROSSING) and set(AXIS_NOTES) <= set(CROSSING)
    assert VIDEOS | RESAMPLED | set(UNBATCHED) <= set(FAMILIES)


@pytest.mark.parametrize("model_type", sorted(BY_HAND))
def test_families_whose_image_tokens_are_not_known_name_the_way_by_hand(model_type: str) -> None:
    with pytest.raises(InputError, match=r"attention_factors\(image_spans=") as error:
        find_image_spans({"input_ids": [[1]]}, SimpleNamespace(model_type=model_type))
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert repr(model_type) in message and BY_HAND[model_type] in message
