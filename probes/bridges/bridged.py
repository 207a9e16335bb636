"""What both bridges share: a model that another library runs, checked against the plain one before it is used.

A bridge encodes, generates and lays out traces as `HookedModel` does; every forward pass that is read or changed goes
through the library. Nothing here knows which library it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from probes.attention import pairwise_question
from probes.attention_calls import UnsupportedAttention
from probes.axes import MARKED
from probes.backend import Recorded
from probes.bridges.passes import BridgedReadings, Pass, Plan, check_places, planned
from probes.bridges.runner import Runner, UnsupportedBridge, twin
from probes.changes import Change, Knockout, Patch
from probes.decoder import last_logits
from probes.encoding import Encoded, row_sets
from probes.inputs import InputError
from probes.interventions import knocked_out
from probes.model import HookedModel
from probes.patching import image_tokens
from probes.prompts import Question
from probes.residuals import check_layers, check_tokens

TOLERANCE = 1e-4
"""Largest difference to the plain model in fp32, of logits and of attention factors, as a share of the largest."""
HALF_TOLERANCE = 5e-2
"""The same in half precision, where libraries round in other places."""


class BridgedModel(HookedModel):
    """A model whose passes another library runs; takes questions and gives traces as `HookedModel` does.

    The model that is given stays as it is: the library gets a twin with the same weights (shared, not copied) and eager
    attention, whose probabilities are of size tokens x tokens in one layer at a time. On making, the bridged model is
    held against the plain one on a question of its own: logits and attention factors must agree to `TOLERANCE`.

    Args:
        model: A transformers model.
        processor: Its processor.

    Raises:
        UnsupportedBridge: If the library does not take the model, or gives other numbers.
        InputError: As `HookedModel`.
    """

    runner_class: ClassVar[type[Runner]]

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        if model.config.model_type in MARKED:
            raise UnsupportedBridge(
                f"{type(self).__name__} does not read {model.config.model_type!r} models, whose images are on a vision "
                "axis: use HookedModel"
            )
        self._plain = HookedModel(model, processor)
        self._trusted: set[type] = set()
        self.runner: Runner = self.runner_class(twin(model))
        """What runs the passes."""
        self._check_against_plain()

    @classmethod
    def of(cls, source: HookedModel | str | Path, **settings: Any) -> Self:
        """Bridge a hooked model, or a checkpoint.

        Args:
            source: A hooked model, which stays as it is, or a path or hub id.
            settings: Of `HookedModel.from_pretrained`, for a checkpoint.

        Raises:
            UnsupportedBridge: As the class.
            InputError: As `HookedModel.from_pretrained`, and for settings of a model that is loaded already.
        """
        if isinstance(source, HookedModel) and settings:
            raise InputError(
                f"{', '.join(settings)} cannot be set on a model that is loaded: load it with them, or give its path"
            )
        if isinstance(source, HookedModel):
            return cls(source.model, source.processor)
        plain = HookedModel.from_pretrained(source, **settings)
        return cls(plain.model, plain.processor)

    def __repr__(self) -> str:
        return super().__repr__().replace("HookedModel(", f"{type(self).__name__}(", 1)

    def residuals(self, encoded: Encoded, tokens: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Read the residual stream of chosen tokens where it enters layers; see `HookedModel.residuals`."""
        check_tokens(tokens)
        check_layers(layers, self.residual_layers)
        self._trust(Patch)
        return self._pass(encoded, Plan(tokens=tokens, layers=tuple(layers))).residuals

    def _pass(self, encoded: Encoded, plan: Plan) -> Pass:
        rows = encoded.columns - encoded.prompt_stop + 1
        kept = last_logits(self.model, rows, encoded.columns)
        inputs = {**self._forward_inputs(encoded), "use_cache": False, "logits_to_keep": kept}
        try:
            with torch.inference_mode():
                found = self.runner.run(inputs, plan)
        except InputError:
            raise
        except (ValueError, IndexError) as error:
            self.runner.refuse(error)
        return found._replace(logits=found.logits[:, -rows:])

    def _answer_logits(self, encoded: Encoded, changes: Sequence[Change] = ()) -> Tensor:
        check_places(changes, (len(encoded), encoded.columns))
        for change in changes:
            self._trust(type(change))
        return self._pass(encoded, self._planned(changes)).logits

    def _planned(self, changes: Sequence[Change]) -> Plan:
        patched = any(not isinstance(change, Knockout) for change in changes)
        return planned(changes, self.layers, self.residual_layers if patched else ())

    def _record(self, encoded: Encoded, names: Sequence[str], per_head: bool, maps: bool) -> Recorded:  # noqa: ARG002
        return self._read(encoded, row_sets(encoded, names), encoded.spans, per_head)

    def _read(self, encoded: Encoded, row_sets: Mapping[str, Tensor], spans: Sequence[Any], per_head: bool) -> Recorded:
        sets = torch.stack([mask.cpu() for mask in row_sets.values()], dim=1)
        found = self._pass(encoded, Plan(sets=sets, per_head=per_head))
        missing = [layer for layer in self.layers if layer not in found.sums]
        if missing:
            raise self.runner.refusal(f"its layers {missing} show no attention probabilities there")
        sums = {layer: found.sums[layer] for layer in self.layers}
        readings = BridgedReadings(sums, list(row_sets), sets, spans, per_head)
        return Recorded(readings, self._scores(encoded, found.logits))

    def _pairwise(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        asked = pairwise_question(encoded.inputs, encoded.spans)
        readings = self._read(encoded, asked.row_sets, asked.columns, False).readings
        factors = asked.answer({name: readings.factors(name) for name in asked.row_sets})
        return np.asarray(factors.float().numpy())

    @property
    def _tolerance(self) -> float:
        return TOLERANCE if self.model.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE

    def _check_against_plain(self) -> None:
        """Hold logits and factors of a left-padded batch against the plain model's."""
        encoded = _probe(self._plain)
        try:
            expected = self._plain._record(encoded, ["predicting"], True, False)
            logits = self._plain._answer_logits(encoded)
            found = self._record(encoded, ["predicting"], True, False)
            bridged = self._answer_logits(encoded)
        except (UnsupportedBridge, UnsupportedAttention):
            raise
        # Libraries fail on models that they do not take in as many ways as there are models.
        except Exception as error:
            self.runner.refuse(error)
        self._compare("logits", bridged, logits)
        self._compare("attention", found.readings.factors("predicting"), expected.readings.factors("predicting"))

    def _trust(self, kind: type) -> None:
        """Hold one kind of change against the plain model's before the first of it is trusted."""
        if kind not in self._trusted:
            (self._check_knockouts if kind is Knockout else self._check_patches)()
            self._trusted.add(kind)

    def _check_knockouts(self) -> None:
        """Hold a knock-out in every layer against the plain model's."""
        encoded = _probe(self._plain)
        cut = knocked_out(encoded, "after", [0] * len(encoded))
        expected = self._plain._answer_logits(encoded, [cut])
        found = self._pass(encoded, self._planned([cut])).logits
        self._compare("logits under a knock-out", found, expected)

    def _check_patches(self) -> None:
        """Hold what is read of every layer's residual stream, and a patch of them all, against the plain model's."""
        encoded = _probe(self._plain)
        tokens, layers = image_tokens(encoded, [0] * len(encoded)), self.residual_layers
        expected = self._plain.residuals(encoded, tokens, layers)
        found = self._pass(encoded, Plan(tokens=tokens, layers=tuple(layers))).residuals
        for layer in layers:
            self._compare(f"residual stream before layer {layer}", found[layer], expected[layer])
        turned = Patch(tokens, {layer: values.flip(0) for layer, values in expected.items()})
        logits = self._pass(encoded, self._planned([turned])).logits
        self._compare("logits under a patch", logits, self._plain._answer_logits(encoded, [turned]))

    def _compare(self, what: str, found: Tensor, expected: Tensor) -> None:
        difference = float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
        if not difference <= self._tolerance:
            raise self.runner.refusal(
                f"its {what} differ from the plain model's by {difference:.1e} of the largest, and at most "
                f"{self._tolerance:.0e} is let pass"
            )


def _probe(model: HookedModel) -> Encoded:
    """Two questions of unequal length about an image each, with an answer, so that one is padded."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    questions = [Question([image], "What is it?"), Question([image], "What is the thing in the picture, and where?")]
    return model.encode(questions, ["It is here."] * 2)
