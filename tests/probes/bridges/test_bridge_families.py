"""Every family of the mapping through each bridge: attention, knock-outs and patches as the model itself has them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from probes.attention import attention_layers
from probes.bridges import UnsupportedBridge
from probes.bridges.nnsight import NNsightRunner
from probes.bridges.passes import BridgedReadings, Plan, planned
from probes.bridges.runner import Runner, twin
from probes.bridges.support import NNSIGHT, NO_KNOCKOUT, NO_PATCH, PATTERNLESS, TRANSFORMER_LENS, table
from probes.bridges.transformer_lens import TransformerLensRunner
from probes.changes import Change, Knockout, Patch, applied
from probes.families.support import CROSSING, VERIFIED
from probes.inputs import InputError
from probes.residuals import reading_residuals
from tests.probes.test_families import OTHER_DECODERS
from tests.probes.zoo.catalogue import ENTRIES, Entry
from tests.probes.zoo.verifying import (
    SPANS,
    build_model,
    eager_attentions,
    inputs_of,
    model_without_weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-5
LAYER = 1
LAST_ROWS = 3
SLOW = ("dots3_note", "glm5_next", "minicpmv4_6", "minicpmv4_7", "nemotron_h_omni", "qwen4_exp")
"""Left to `make test-all`: these take half a second to half a minute each."""
LOOKING_BACK = ("inkling2",)
"""Families whose streams can be read and not patched."""
RUNNERS: dict[str, type[Runner]] = {"nnsight": NNsightRunner, "transformer_lens": TransformerLensRunner}
CASES = [
    *(pytest.param("nnsight", name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(NNSIGHT)),
    *(("nnsight", name) for name in OTHER_DECODERS),
    *(("transformer_lens", name) for name in (*sorted(TRANSFORMER_LENS), "llava_gemma2")),
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("bridge", "model_type"), CASES)
@torch.no_grad()
def test_a_bridge_shows_and_changes_what_the_model_does(bridge: str, model_type: str) -> None:
    entry = ENTRIES.get(model_type, Entry())
    model = build_model(model_type, "eager")
    bare = inputs_of(model, entry, padded=True)
    inputs: dict[str, Any] = {**bare, "use_cache": False}
    unchanged = model(**inputs).logits[:, -1]
    runner = RUNNERS[bridge](twin(model))
    by_mask = TRANSFORMER_LENS.get(model_type) == "mask"
    rows = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    rows[:, -LAST_ROWS:] = True

    found = runner.run(inputs, Plan(sets=rows[:, None]))
    assert list(found.sums) == runner.layers
    spans = [list(SPANS)] * len(rows)
    factors = BridgedReadings(found.sums, ["rows"], rows[:, None], spans, False).factors("rows").numpy()
    dense = eager_attentions(model, bare, len(attention_layers(model)))
    expected = np.stack([factors_of(layer[:, :, -LAST_ROWS:]) for layer in dense], axis=1)
    assert np.abs(factors - expected).max() < TOLERANCE
    assert np.abs(factors - expected[..., ::-1]).max() > 100 * TOLERANCE

    cut = Knockout(rows, spans)
    if isinstance(runner, TransformerLensRunner) and by_mask:
        assert difference(runner, model, inputs, unchanged, cut) > 100 * TOLERANCE
        runner.knocks_out_by = "mask"
    if bridge == "nnsight" and model_type in NO_KNOCKOUT:
        with pytest.raises(UnsupportedBridge, match="choose their columns by the mask that they are given"):
            difference(runner, model, inputs, unchanged, cut)
    else:
        assert difference(runner, model, inputs, unchanged, cut) < TOLERANCE

    tokens = torch.zeros_like(rows)
    tokens[:, SPANS[0][0] : SPANS[0][1]] = True
    if model_type in NO_PATCH and model_type not in LOOKING_BACK:
        for layer_reader in (lambda: read(model, inputs, tokens), lambda: runner.run(inputs, reading(tokens))):
            with pytest.raises(InputError, match="residual stream has the form"):
                layer_reader()
        return
    own = read(model, inputs, tokens)
    torch.testing.assert_close(runner.run(inputs, reading(tokens)).residuals[LAYER], own, rtol=1e-5, atol=1e-5)
    turned = Patch(tokens, {LAYER: own.flip(0)})
    if model_type in LOOKING_BACK:
        with pytest.raises(InputError, match="looks back at the residual streams of earlier layers"):
            difference(runner, model, inputs, unchanged, turned)
    else:
        assert difference(runner, model, inputs, unchanged, turned) < TOLERANCE


def factors_of(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(batch, images) of one layer's rows (batch, heads, rows, columns)."""
    return np.stack([rows[..., start:stop].mean(axis=(1, 2, 3)) for start, stop in SPANS], axis=-1)


def reading(tokens: torch.Tensor) -> Plan:
    return Plan(tokens=tokens, layers=(LAYER,))


def read(model: Any, inputs: dict[str, Any], tokens: torch.Tensor) -> torch.Tensor:
    with reading_residuals(model, tokens, [LAYER]) as found:
        model(**inputs)
    return found[LAYER]


def difference(runner: Runner, model: Any, inputs: dict[str, Any], unchanged: torch.Tensor, change: Change) -> float:
    """Of the last row's logits under a change, as a share of the largest; the change itself must act."""
    with applied(model, [change]):
        changed = model(**inputs).logits[:, -1]
    assert (changed - unchanged).abs().max() > 100 * TOLERANCE
    plan = planned([change], runner.layers, runner.residual_layers if isinstance(change, Patch) else ())
    return float((runner.run(inputs, plan).logits[:, -1] - changed).abs().max() / unchanged.abs().max())


@pytest.mark.parametrize("model_type", sorted(VERIFIED - {*TRANSFORMER_LENS, *PATTERNLESS, *CROSSING} | {"mllama"}))
def test_families_without_an_adapter_are_refused_before_they_run(model_type: str) -> None:
    with pytest.raises(UnsupportedBridge, match=r"TransformerLens does not take .*Unsupported architecture"):
        TransformerLensRunner(twin(model_without_weights(model_type)))


@pytest.mark.parametrize("model_type", sorted(set(CROSSING) - {"mllama"}))
def test_families_whose_images_are_no_tokens_are_refused_by_both(model_type: str) -> None:
    for library, runner in (("nnsight", NNsightRunner), ("TransformerLens", TransformerLensRunner)):
        with pytest.raises(UnsupportedBridge, match=f"{library} does not take .*its images are no tokens"):
            runner(model_without_weights(model_type))


@pytest.mark.parametrize("model_type", sorted({*OTHER_DECODERS} - {"llava_gemma2"}))
def test_a_llava_over_another_decoder_is_refused(model_type: str) -> None:
    with pytest.raises(UnsupportedBridge, match="TransformerLens does not take LlavaForConditionalGeneration"):
        TransformerLensRunner(twin(model_without_weights(model_type)))


@torch.no_grad()
def test_cross_attention_over_image_features_shows_nothing() -> None:
    model, entry = build_model("mllama", "eager"), ENTRIES["mllama"]
    inputs = inputs_of(model, entry, padded=False)
    runner = NNsightRunner(twin(model))
    sets = torch.ones_like(inputs["input_ids"], dtype=torch.bool)[:, None]
    assert set(runner.layers) - set(runner.run({**inputs, "use_cache": False}, Plan(sets=sets)).sums) == {1}


def test_the_table_of_the_docs_is_fresh() -> None:
    assert table() in (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")
    assert set(TRANSFORMER_LENS) <= VERIFIED and not set(TRANSFORMER_LENS) & set(PATTERNLESS)
    assert {*NO_PATCH, *NO_KNOCKOUT} <= NNSIGHT <= VERIFIED


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")
    example = text.split("```python\n", 1)[1].split("```", 1)[0]
    exec(compile(example, "docs/bridges.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::3]] == ["HookedModel", "TransformerLensModel", "NNsightModel"]
    assert len({line.split(" ", 1)[1] for line in lines[::3]}) == 1
    assert lines[2] == lines[5] == lines[8] == "(6, 3)"
