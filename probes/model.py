"""A vision-language model with its processor: load, ask, and trace where the answer looked.

Answers come first (generated greedily, or given), and one teacher-forced forward pass over prompt and answer is then
read by the attention recorder. A generated and a given answer thus take the same path, a batch's finished rows add
nothing behind their end, and log-probabilities, factors and maps all belong to the same pass. In exact arithmetic its
factors, maps and logits equal those of the generation itself. Log-probabilities are the model's own, of these logits: a
checkpoint's repetition penalty, and the bar on tokens that stand for images, change what is chosen and not its score.
This file holds no attention arithmetic and no family's details.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from probes.attention import UnsupportedAttention, pairwise_factors
from probes.backend import AnswerScores, Recorded
from probes.changes import Change, applied
from probes.checkpoints import first_line
from probes.decoder import decoder_layers, image_layers, last_logits
from probes.encoding import Answer, Encoded, Encoder, to_device
from probes.errors import counted
from probes.generation import greedy_ids, nan_message
from probes.inputs import InputError
from probes.layer_kinds import LayerKinds
from probes.layer_parts import layer_kinds
from probes.loading import DeviceMap, check_pair, load
from probes.mixers.tracing import mixer_recorder, mixer_traces
from probes.prompts import Question
from probes.recording import own_columns, recorder_of
from probes.reduction.videos import with_video_features
from probes.residuals import reading_residuals
from probes.routing import Routing, RoutingRecorder
from probes.trace import Trace

__all__ = ["AnswerScores", "HookedModel", "Question", "Trace"]


class HookedModel:
    """A transformers image-text-to-text model and its processor, in evaluation mode.

    Mllama is traced in its cross-attention layers, over the vision axis: all attention there goes to images (an only
    one's factor is one over its columns), and of images with text between them a token sees the last.

    Args:
        model: The model, on whatever device and in whatever precision it runs.
        processor: What AutoProcessor gives for it; its chat template is the prompt format.

    Raises:
        InputError: If the model takes no images or its prompt none, the processor is incomplete or has no chat
            template, or the two do not match.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        check_pair(model, processor)
        self.model = model.eval()
        self.processor = processor
        self._encoder = Encoder(model.config, processor)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        revision: str | None = None,
        device_map: DeviceMap | None = None,
    ) -> "HookedModel":
        """Load a checkpoint from a local folder or the hub; see `probes.loading.load` for the arguments.

        Raises:
            InputError: If the checkpoint is missing, text-only, without a processor, pickled or in want of code of its
                own without leave, incomplete, or broken.
        """
        model, processor = load(
            path_or_id,
            dtype=dtype,
            device=device,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            revision=revision,
            device_map=device_map,
        )
        return cls(model, processor)

    @property
    def layers(self) -> list[int]:
        """Decoder layers whose attention reaches images, true indices: of Mllama those with cross-attention."""
        return image_layers(self.model)

    @property
    def residual_layers(self) -> list[int]:
        """Decoder layers of every kind, true indices: where the residual stream can be read and replaced."""
        return list(decoder_layers(self.model))

    @property
    def layer_kinds(self) -> dict[int, LayerKinds]:
        """What each decoder layer is made of, by true index; see `probes.layer_parts.layer_kinds`."""
        return layer_kinds(self.model)

    @property
    def device(self) -> torch.device:
        """Where inputs go: for a model spread over devices, where its token embeddings run."""
        embeddings = self.model.get_input_embeddings()
        # Weights that accelerate keeps elsewhere stand on no real device until they are used.
        runs_on = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
        return torch.device(self.model.device if runs_on is None else runs_on)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        precision = str(self.model.dtype).removeprefix("torch.")
        return (
            f"HookedModel({type(self.model).__name__}, {count / 1e6:,.1f} M parameters, attention in "
            f"{counted(len(self.layers), 'layer')}, {precision} on {self.device})"
        )

    def encode(
        self, questions: Sequence[Question], answers: Sequence[Answer] | None = None, reserve: int = 0
    ) -> Encoded:
        """Encode a batch of questions, followed by answers where given, on the model's device.

        Prompts of unequal length are padded on the left. Batches of equal length spare the padding and the mask of
        size tokens x tokens that transformers builds for it. What a model drops of a video before its decoder is left
        out, so that columns are the decoder's (`probes.reduction.videos`).

        Args:
            questions: At least one.
            answers: Text, or token ids as `Trace.answer_ids` holds them.
            reserve: Tokens that must still fit into the model's context.

        Raises:
            InputError: If a question has no image and no video or no words, its marks do not fit them, one cannot be
                read, its tokens are truncated or not known, or prompt and answer are longer than the context.
        """
        written = to_device(self._encoder.encode(questions, answers), self.device, self.model.dtype)
        encoded = with_video_features(self.model, written)
        self._encoder.check_length(encoded, reserve)
        return encoded

    def generate(
        self, images: Sequence[Any], question: str, max_new_tokens: int = 32, videos: Sequence[Any] = ()
    ) -> str:
        """Answer a question greedily.

        Args:
            images: In any form that ImageRef.of takes.
            question: Text with `<image>` and `<video>` marks, or without (images and videos then come first).
            max_new_tokens: Most tokens to write.
            videos: In any form that `probes.Video.of` takes.

        Raises:
            InputError: As `encode`, and if the logits are not numbers.
        """
        return self.generate_batch([Question(images, question, videos)], max_new_tokens)[0]

    def generate_batch(self, questions: Sequence[Question], max_new_tokens: int = 32) -> list[str]:
        """Answer several questions greedily; see `generate`."""
        encoded = self.encode(questions, reserve=max_new_tokens)
        return [self._text(ids) for ids in self._generate(encoded, max_new_tokens)]

    def log_probability(self, questions: Sequence[Question], answers: Sequence[Answer]) -> AnswerScores:
        """Score answers, teacher-forced.

        Returns:
            Per question the answer's summed log-probability and its number of tokens.

        Raises:
            InputError: As `encode`, if an answer is empty text, and if the logits are not numbers.
        """
        return self.score(self.encode(questions, answers))

    def score(self, encoded: Encoded, changes: Sequence[Change] = ()) -> AnswerScores:
        """Score the answers of an encoded batch in one forward pass.

        Args:
            encoded: Questions and answers.
            changes: What is knocked out or patched on the way; see `probes.changes`.

        Raises:
            InputError: If the model cannot take the inputs, a change does not fit, or the logits are not numbers.
            UnsupportedAttention: If a layer's attention cannot be reached.
        """
        return self._scores(encoded, self._answer_logits(encoded, changes))

    def residuals(self, encoded: Encoded, tokens: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Read the residual stream of chosen tokens where it enters layers, in one forward pass.

        Args:
            encoded: Questions, with or without answers.
            tokens: Bool (batch, tokens).
            layers: True indices, of `residual_layers`.

        Returns:
            Per layer (chosen tokens, hidden size), in the order of `tokens` read row by row.

        Raises:
            InputError: If layers or tokens do not fit, or the decoder's residual stream has another form.
        """
        with reading_residuals(self.model, tokens, layers) as found:
            self._answer_logits(encoded)
        return found

    def routing(self, encoded: Encoded, layers: Collection[int] | None = None) -> Routing:
        """Record which experts each token goes to, as the model routes them in one forward pass.

        Args:
            encoded: Questions, with or without answers.
            layers: True indices of layers with experts; None is all of them.

        Returns:
            A `Routing` of every token of the batch but padding; samples are batch rows, and tokens of images and videos
            bear their numbers.

        Raises:
            InputError: If a layer has no experts, or the model shortens its sequence (pruned video).
            UnsupportedRouting: If a router is not known, or does not choose as its rule says.
        """
        recorder = RoutingRecorder(self.model, layers)
        with recorder:
            self._answer_logits(encoded)
        tokens = int(encoded.inputs["attention_mask"].sum())
        if recorder.tokens != tokens:
            raise InputError(
                f"the routers saw {recorder.tokens} tokens of a batch of {tokens}: the model prunes its "
                "videos' tokens, so that none can be told; ask about images, or set video_pruning_rate to 0"
            )
        return recorder.routing(encoded.spans if encoded.cross_spans is None else [])

    def _scores(self, encoded: Encoded, logits: torch.Tensor) -> AnswerScores:
        totals = []
        for row, ids in enumerate(encoded.answer_ids):
            rows = logits[row, : max(len(ids), 1)].float()
            if torch.isnan(rows).any():
                raise InputError(nan_message(f"question {row}" if len(encoded) > 1 else "the question"))
            chosen = torch.tensor(ids, dtype=torch.long, device=rows.device)
            scores = rows.log_softmax(dim=-1)[: len(ids)].gather(1, chosen[:, None])
            totals.append(float(scores.double().sum()) if ids else float("nan"))
        return AnswerScores(np.array(totals, dtype=np.float64), np.array(encoded.answer_lengths, dtype=np.int64))

    def trace(
        self,
        images: Sequence[Any],
        question: str,
        answer: Answer | None = None,
        max_new_tokens: int = 32,
        rows: str = "paper",
        per_head: bool = False,
        maps: bool = True,
        image_to_image: bool = False,
        videos: Sequence[Any] = (),
    ) -> Trace:
        """Trace one question; see `trace_batch`, and `generate` for the forms that images and videos take."""
        answers = None if answer is None else [answer]
        asked = [Question(images, question, videos)]
        return self.trace_batch(asked, answers, max_new_tokens, (rows,), per_head, maps, image_to_image)[0]

    def trace_batch(
        self,
        questions: Sequence[Question],
        answers: Sequence[Answer] | None = None,
        max_new_tokens: int = 32,
        rows: Sequence[str] = ("paper", "predicting"),
        per_head: bool = False,
        maps: bool = True,
        image_to_image: bool = False,
        mixer_forms: Sequence[str] = (),
        mixer_layers: Collection[int] | None = None,
    ) -> list[Trace]:
        """Answer questions, or take the answers given, and read the attention to each image and video.

        Args:
            questions: A batch; of equal length where speed and memory matter.
            answers: Text or token ids per question; None generates them greedily.
            max_new_tokens: Most tokens to generate.
            rows: Row sets, the first of which is the traces' own: "paper", "predicting", "answer" or "anchor" (see
                `probes.encoding.row_sets`).
            per_head: Keep heads apart in the factors.
            maps: Keep the attention to each image token.
            image_to_image: Also trace attention between images (`Trace.pairwise`), by a second forward pass.
            mixer_forms: Forms of hidden attention (see `probes.hidden_attention`) to read in the same pass, in layers
                without softmax (`Trace.mixers`); means over heads. None by default.
            mixer_layers: Layers that these are read in, true indices; None is every layer with a mixer.

        Raises:
            InputError: As `encode`, if a row set, form or layer is unknown, and if the logits are not numbers.
            UnsupportedAttention: If a layer's attention, or hidden attention, cannot be read.
        """
        names = (rows,) if isinstance(rows, str) else tuple(rows)
        if not names:
            raise InputError("trace needs at least one row set, for example rows=('paper',)")
        encoded = self._answered(questions, answers, max_new_tokens)
        mixers = mixer_recorder(self.model, encoded, names, mixer_forms, layers=mixer_layers) if mixer_forms else None
        with mixers or nullcontext():
            recorder, scores = self._record(encoded, names, per_head, maps)
        hidden = None if mixers is None else mixer_traces(mixers, encoded, scores, names, mixer_forms)
        pairwise = self._pairwise(encoded) if image_to_image else None
        factors = {name: recorder.factors(name).float().cpu().numpy() for name in names}
        recorded = {name: recorder.maps(name) for name in names} if maps else {}
        return [
            Trace(
                answer=given if isinstance(given := answers[row] if answers else None, str) else self._text(ids),
                answer_ids=ids,
                layers=list(recorder.layers),
                rows=names[0],
                factors_by_rows={name: own_columns(name, value[row], encoded, row) for name, value in factors.items()},
                maps_by_rows={
                    name: tuple(
                        span.spread(each.float().cpu().numpy())
                        for span, each in zip(encoded.shown[row], value[row], strict=True)
                    )
                    for name, value in recorded.items()
                },
                log_probability=float(scores.log_probability[row]),
                prompt_tokens=encoded.prompt_lengths[row],
                answer_tokens=len(ids),
                spans=tuple(encoded.shown[row]),
                image_sizes=encoded.image_sizes[row],
                pairwise=None if pairwise is None else _own_block(pairwise[row], len(encoded.spans[row])),
                videos=encoded.videos[row],
                mixers=None if hidden is None else hidden[row],
            )
            for row, ids in enumerate(encoded.answer_ids)
        ]

    def _record(self, encoded: Encoded, names: Sequence[str], per_head: bool, maps: bool) -> Recorded:
        """Score an encoded batch, and record the attention of the row sets in the same pass."""
        recorder = recorder_of(self.model, encoded, names, per_head, maps)
        with recorder:
            return Recorded(recorder, self.score(encoded))

    def _answered(
        self, questions: Sequence[Question], answers: Sequence[Answer] | None, max_new_tokens: int
    ) -> Encoded:
        if answers is not None:
            return self.encode(questions, answers)
        encoded = self.encode(questions, reserve=max_new_tokens)
        return self._encoder.append(encoded, self._generate(encoded, max_new_tokens))

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _forward_inputs(self, encoded: Encoded) -> dict[str, Any]:
        """Inputs with the positions that generation gives them, which left padding would otherwise shift."""
        inputs: dict[str, Any] = dict(encoded.inputs)
        if not bool(inputs["attention_mask"].all()):
            prepare = self.model._prepare_position_ids_for_generation
            inputs["position_ids"] = prepare(inputs["input_ids"], dict(inputs))
        return inputs

    def _answer_logits(self, encoded: Encoded, changes: Sequence[Change] = ()) -> torch.Tensor:
        """Logits of the rows that predict the answer, (batch, answer tokens + 1, vocabulary)."""
        rows = encoded.columns - encoded.prompt_stop + 1
        with torch.inference_mode(), self._one_line_refusals(), applied(self.model, changes):
            kept = last_logits(self.model, rows, encoded.columns)
            output = self.model(**self._forward_inputs(encoded), use_cache=False, logits_to_keep=kept)
        logits: torch.Tensor = output.logits
        return logits[:, -rows:]

    def _pairwise(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        encoded.need_image_tokens("image_to_image")
        factors = pairwise_factors(self.model, self._forward_inputs(encoded), encoded.spans)
        values: npt.NDArray[np.float32] = factors.float().cpu().numpy()
        return values

    def _generate(self, encoded: Encoded, max_new_tokens: int) -> list[tuple[int, ...]]:
        placeholders = self._encoder.placeholders
        with self._one_line_refusals():
            return greedy_ids(self.model, self.processor.tokenizer, encoded.inputs, max_new_tokens, placeholders)

    @contextmanager
    def _one_line_refusals(self) -> Iterator[None]:
        """Turn what transformers raises for inputs that do not fit the model into one clear line."""
        try:
            yield
        except (InputError, UnsupportedAttention):
            raise
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{type(self.model).__name__} refuses these inputs ({first_line(error)}): "
                "check that processor and model belong together"
            ) from error


def _own_block(matrix: npt.NDArray[np.float32], images: int) -> npt.NDArray[np.float32]:
    """One row's image-to-image block, text last, without the batch's padding."""
    kept = [*range(images), matrix.shape[-1] - 1]
    return matrix[:, kept][:, :, kept]
