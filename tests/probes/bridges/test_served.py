"""nnsight's remote back end, up to where a server is needed: the same block, serialised, read back and run."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nnsight.intervention.backends.local import LocalSimulationBackend
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.schema.config import CONFIG

from probes.bridges import ServedModel
from probes.inputs import InputError
from probes.interventions import knockout_effects
from probes.model import HookedModel, Question
from probes.patching import patch_effects
from studies.bundled import BUNDLED_MODEL
from tests.probes.bridges.backends import TOLERANCE
from tests.probes.hooked import picture

pytestmark = pytest.mark.filterwarnings("ignore")
QUESTION = Question([picture(seed=seed) for seed in range(3)], "Which image shows a bicycle?")


@pytest.fixture(autouse=True)
def same_path() -> Iterator[None]:
    """nnsight's simulation hides this project's folder, and puts it back at another place."""
    path = list(sys.path)
    yield
    sys.path[:] = path


@pytest.fixture(scope="module")
def plain() -> HookedModel:
    return HookedModel.from_pretrained(BUNDLED_MODEL, dtype="float32", device="cpu")


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API key, and a name for the model that the hub is not asked for."""
    monkeypatch.setattr(CONFIG.API, "APIKEY", "none-that-works")
    monkeypatch.setattr(CONFIG.APP, "REMOTE_LOGGING", False)
    monkeypatch.setattr(
        "nnsight.modeling.transformers.TransformersModel._remoteable_model_key", lambda _: '{"repo_id": "a/b"}'
    )


def served(remote: bool | str = True) -> ServedModel:
    return ServedModel(BUNDLED_MODEL, remote=remote, dtype="float32")


def test_the_block_that_would_be_sent_runs_alone_and_gives_the_same(plain: HookedModel) -> None:
    """Serialised and read back by nnsight's own dry run, with the modules of this project out of reach."""
    model = served("local")
    answer = plain.trace(*QUESTION).answer_ids
    for per_head in (False, True):
        found = model.trace(*QUESTION, answer=answer, per_head=per_head, image_to_image=True)
        expected = plain.trace(*QUESTION, answer=answer, per_head=per_head, image_to_image=True)
        np.testing.assert_allclose(found.factors, expected.factors, atol=TOLERANCE * expected.factors.max())
        assert found.pairwise is not None and expected.pairwise is not None
        np.testing.assert_allclose(found.pairwise, expected.pairwise, atol=TOLERANCE)
        assert found.log_probability == pytest.approx(expected.log_probability, abs=TOLERANCE)
    windows = [[0], [3, 4]]
    for effects in (knockout_effects, patch_effects):
        changed, wanted = (effects(each, QUESTION, answer, windows=windows) for each in (model, plain))
        assert np.abs(wanted).max() > 100 * TOLERANCE
        np.testing.assert_allclose(changed, wanted, atol=TOLERANCE)


def test_remote_runs_send_the_block_and_not_the_model(
    plain: HookedModel, keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = served()
    sent: list[tuple[Any, int]] = []

    def request(self: RemoteBackend, request: Any, tracer: Any) -> None:
        """What a server does with a request, in this process."""
        sent.append((request, len(self._serialize(tracer))))
        LocalSimulationBackend(model.runner._envoy)(tracer)  # type: ignore[attr-defined]

    monkeypatch.setattr(RemoteBackend, "request", request)
    answer = [5, 6]
    found, expected = (each.trace(*QUESTION, answer=answer) for each in (model, plain))
    np.testing.assert_allclose(found.factors, expected.factors, atol=TOLERANCE * expected.factors.max())
    (asked, size), *rest = sent
    assert not rest and asked.model_key.endswith(':{"repo_id": "a/b"}')
    assert asked.env["attn_implementation"] == "eager"
    assert size < sum(each.numel() for each in plain.model.parameters())


def test_without_a_key_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    with pytest.raises(InputError, match="wants an API key: set NDIF_API_KEY, or NDIF_HOST"):
        served()
    assert served("http://127.0.0.1:9").device == torch.device("cpu")


def test_without_a_server_the_error_names_it(keyed: None) -> None:
    model = served("http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot be run at http://127.0.0.1:9 \(.*NDIF_API_KEY.*NDIF_HOST") as error:
        model.trace(*QUESTION, answer=[5])
    assert isinstance(error.value.__cause__, OSError)


def test_what_a_server_refuses_is_passed_on(keyed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: RemoteBackend, request: Any, tracer: Any) -> None:
        raise RemoteError("this model is not deployed")

    monkeypatch.setattr(RemoteBackend, "request", refuse)
    with pytest.raises(InputError, match="RemoteError: this model is not deployed"):
        served().trace(*QUESTION, answer=[5])


def test_attention_that_does_not_add_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.bridges import nnsight as bridge

    original = bridge._traced

    def doubled(*args: Any) -> Any:
        logits, sums, *rest = original(*args)
        return logits, {layer: each * 2 for layer, each in sums.items()}, *rest

    monkeypatch.setattr(bridge, "_traced", doubled)
    with pytest.raises(InputError, match="for layer 0 is no attention: its rows do not add up to one"):
        served("local").trace(*QUESTION, answer=[5])


def test_what_a_server_cannot_be_asked_is_refused(plain: HookedModel, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="give the answers"):
        served("local").trace(*QUESTION)
    with pytest.raises(InputError, match="knows models by name"):
        ServedModel.of(plain)
    with pytest.raises(InputError, match="give remote=True"):
        served(False)
    with pytest.raises(InputError, match="no such folder"):
        ServedModel(tmp_path / "none", remote="local")
