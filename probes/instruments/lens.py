"""The logit lens: what the residual stream would answer if the model ended at each layer.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; at image tokens, Neo et al. 2025, "Towards interpreting
visual information processing in vision-language models". It knows a model's final norm and head, and no attention.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from probes.decoder import find_decoder
from probes.inputs import InputError
from probes.instruments.arrays import FloatArray, IntArray, Streams
from probes.model import HookedModel

_NORMS = ("norm", "final_layernorm", "ln_f", "final_layer_norm")
SLACK = {torch.float32: 1e-3}
"""By precision, how far the answer's log-probability through the lens may lie from the model's own, in nats."""
SLACK_ELSEWHERE = 0.1


class AnswerLens(NamedTuple):
    """The answer through the lens, at the rows that predict it."""

    log_probability: npt.NDArray[np.float64]
    """(depths,) nats, summed over the answer's tokens."""
    rank: IntArray
    """(depths,) of the answer's token among all tokens, 1 the most probable; the worst of its tokens."""


class LogitLens:
    """Final norm and head of a model, applied to the residual stream of a streams.

    Raises:
        InputError: If the model's final norm or head is not found.
    """

    def __init__(self, model: HookedModel) -> None:
        decoder = find_decoder(model.model)
        found = [norm for name in _NORMS if isinstance(norm := getattr(decoder, name, None), nn.Module)]
        self._head: Any = model.model.get_output_embeddings()
        if len(found) != 1 or self._head is None:
            raise InputError(
                f"{type(decoder).__name__}: the logit lens needs one final norm ({', '.join(_NORMS)}) and a head, and "
                f"found {len(found)} and {'none' if self._head is None else 'one'}"
            )
        self._norm, self._model = found[0], model.model

    def answer(self, streams: Streams) -> AnswerLens:
        """Log-probability and rank of the answer at each layer.

        Raises:
            InputError: If the last layer's is not the model's own: it does more between norm and answer (a scale, a
                cap), which a lens without it would leave out.
        """
        ids = torch.tensor(streams.answer_ids)
        totals, ranks = [], []
        for stream in streams.residuals[:, streams.predicting]:
            scores = self._log_probabilities(stream)
            own = scores.gather(1, ids[:, None])
            totals.append(float(own.double().sum()))
            ranks.append(int((scores > own).sum(1).max()) + 1)
        slack = SLACK.get(self._model.dtype, SLACK_ELSEWHERE) * len(ids)
        if abs(totals[-1] - streams.log_probability) > slack:
            raise InputError(
                f"the logit lens gives the answer {totals[-1]:.3f} nats at the last layer, the model "
                f"{streams.log_probability:.3f}: it does more than norm and head, so its lens is not known"
            )
        return AnswerLens(np.asarray(totals), np.asarray(ranks, dtype=np.int64))

    def images(self, streams: Streams) -> FloatArray:
        """How much of the answer the images' own tokens carry, (depths, images).

        The probability of each of the answer's tokens through the lens, the mean over these and over the image's
        tokens. A score by image is ours: a reconstruction. An answer that names an image by its number is written at
        no image.
        """
        ids = torch.tensor(streams.answer_ids)
        table = [
            [float(self._log_probabilities(stream[image])[:, ids].exp().mean()) for image in streams.images]
            for stream in streams.residuals
        ]
        return np.asarray(table, dtype=np.float32)

    @torch.no_grad()
    def _log_probabilities(self, stream: FloatArray) -> Tensor:
        """(tokens, hidden) -> (tokens, vocabulary), fp32 on the CPU."""
        values = torch.from_numpy(np.ascontiguousarray(stream)).to(self._model.device, self._model.dtype)
        logits: Tensor = self._head(self._norm(values))
        return logits.float().log_softmax(-1).cpu()
