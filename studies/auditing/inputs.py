"""What an audit checks before it computes: samples, answers, prompt shapes, and the digests that identify a run.

It reads images and tokenises text; it never runs the model.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from probes.inputs import IMAGE_MARK, InputError
from studies.auditing.image_facts import ImageFacts
from studies.auditing.plan import Item
from studies.multi_image import BadRecord, MultiImageQuestion
from studies.position import is_anchored

if TYPE_CHECKING:
    from probes.model import HookedModel

WHOLE_BYTES = 64 * 1024 * 1024
"""Files of a model up to this size are digested whole; of larger ones, size, head and chunks."""

CHUNKS, CHUNK_BYTES = 16, 1024 * 1024
"""Chunks of a larger file, spread evenly from its first byte to its last."""


class Refusal(NamedTuple):
    """Why a sample cannot be asked, and its record if it could be read."""

    error: str
    record: MultiImageQuestion | None = None


class Checked(NamedTuple):
    """Samples that can be asked, and those that cannot, by id."""

    records: list[MultiImageQuestion]
    refused: dict[str, Refusal]


def check_samples(records: Iterable[MultiImageQuestion], bad: Iterable[BadRecord], facts: ImageFacts) -> Checked:
    """Separate samples that can be asked from those that cannot.

    Refused are rows that could not be read, a second sample of the same id, and an image that is missing or no image.
    An image that is broken further inside shows itself when it is decoded. A refused id that is taken gets a number.
    """
    good: dict[str, MultiImageQuestion] = {}
    refused: dict[str, Refusal] = {}
    for record in records:
        error = next((fact.error for fact in map(facts.of, record.images) if fact.error), None)
        if record.id in good or record.id in refused:
            error = f"a second sample with the id {record.id!r}; ids must be unique"
            refused[_free_id(record.id, good, refused)] = Refusal(error)
        elif error is None:
            good[record.id] = record
        else:
            refused[record.id] = Refusal(error, record)
    for row in bad:
        refused[_free_id(row.id, good, refused)] = Refusal(row.error)
    return Checked(list(good.values()), refused)


def check_answers(records: Iterable[MultiImageQuestion], answers: Mapping[str, str]) -> Checked:
    """Separate samples that have a given answer from those that have none, or an empty one.

    Answers that belong to no sample are counted on stderr.

    Raises:
        InputError: If no answer belongs to any sample; names ids of both sides.
    """
    records = list(records)
    unused = set(answers) - {record.id for record in records}
    if records and len(unused) == len(answers):
        theirs, ours = _first_ids(answers), _first_ids(record.id for record in records)
        raise InputError(
            f"--answers: no answer belongs to any sample: the file's ids are {theirs}, and the samples' are {ours}; "
            "give the answers under the ids of the samples"
        )
    if unused:
        print(f"{len(unused)} answers of --answers belong to no sample of this audit and are not used", file=sys.stderr)
    good: list[MultiImageQuestion] = []
    refused: dict[str, Refusal] = {}
    for record in records:
        if answers.get(record.id, "").strip():
            good.append(record)
        else:
            state = "an empty answer" if record.id in answers else "no answer"
            error = f"the answers file has {state} for this sample; add it or leave the sample out"
            refused[record.id] = Refusal(error, record)
    return Checked(good, refused)


def items(model: "HookedModel", records: Sequence[MultiImageQuestion], facts: ImageFacts) -> list[Item]:
    """What the plan needs of each sample: prompts with equal shapes have equal token lengths.

    The shape is (images, text tokens, image tokens); for processors that do not say how many tokens an image takes,
    the sizes of the images stand for it.
    """
    lengths: dict[str, int] = {}
    found = []
    for record in records:
        text = record.question.replace(IMAGE_MARK, "\n")
        if text not in lengths:
            lengths[text] = _text_tokens(model.processor, text)
        tokens = _image_tokens(model.processor, [facts.of(image).size for image in record.images])
        found.append(Item(record.id, (len(record.images), lengths[text], *tokens), is_anchored(record)))
    return found


def data_digest(records: Iterable[MultiImageQuestion], refused: Mapping[str, str], facts: ImageFacts) -> str:
    """SHA-256 over every field of every sample, image bytes included, whatever file they came from."""
    total = hashlib.sha256()
    for record in records:
        row = {
            "id": record.id,
            "question": record.question,
            "answer": record.answer,
            "target": record.target,
            "task": record.task,
            "split": record.split,
            "choices": list(record.choices),
            "boxes": [list(box) for box in record.boxes],
            "base": record.base,
            "scoring": record.scoring,
            "meta": dict(record.meta),
            "images": [facts.of(image).digest for image in record.images],
        }
        total.update(json.dumps(row, sort_keys=True, default=str).encode())
    total.update(json.dumps(dict(refused), sort_keys=True).encode())
    return total.hexdigest()


def model_digest(path_or_id: str, model: "HookedModel", leave_out: Collection[str] = ()) -> str | None:
    """SHA-256 over the names and contents of a model's folder, or the commit of a model from a hub.

    Files up to `WHOLE_BYTES` are read whole. Of a larger file, the digest covers its size, the head of a safetensors
    file (names, shapes and number types of all weights), and `CHUNKS` pieces of `CHUNK_BYTES` spread evenly over it,
    both ends included, so that a model of many gigabytes does not have to be read twice. Weights that differ only
    between these pieces are not told apart.

    Args:
        path_or_id: A folder, or a hub id.
        model: What was loaded from it.
        leave_out: Names of files that decide nothing, such as a model card's.

    Returns:
        The digest; None, with a line on stderr, for a hub model whose commit is unknown: a name says nothing of what
        was loaded.
    """
    folder = Path(path_or_id)
    if not folder.is_dir():
        commit = getattr(model.model.config, "_commit_hash", None)
        if commit:
            return f"commit {commit}"
        print(f"{path_or_id}: the hub gives no commit, so the run cannot note which weights it used", file=sys.stderr)
        return None
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.as_posix() not in leave_out:
            total.update(f"{relative.as_posix()}\0{_content_digest(path)}\0".encode())
    return total.hexdigest()


def check_device(device: str | None) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        InputError: Naming the device.
    """
    import torch

    if device in (None, "auto"):
        return
    try:
        torch.empty(1, device=device)
    # Builds without a device's support raise AssertionError, others RuntimeError or NotImplementedError.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--device {device}: not usable on this machine ({reason}); try cpu") from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _free_id(name: str, *taken: Mapping[str, Any]) -> str:
    if not any(name in ids for ids in taken):
        return name
    number = 2
    while any(f"{name}#{number}" in ids for ids in taken):
        number += 1
    return f"{name}#{number}"


def _text_tokens(processor: Any, text: str) -> int:
    tokenizer = getattr(processor, "tokenizer", processor)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _image_tokens(processor: Any, sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    # Serving engines ask processors this way; those that do not answer are grouped by image sizes.
    count = getattr(processor, "_get_num_multimodal_tokens", None)
    if count is not None:
        try:
            answer = count(image_sizes=[(height, width) for width, height in sizes])
            return (sum(answer["num_image_tokens"]),)
        except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError):
            pass
    return tuple(value for size in sizes for value in size)


def _content_digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= WHOLE_BYTES:
        return file_digest(path)
    part = hashlib.sha256()
    with path.open("rb") as stream:
        if path.suffix == ".safetensors":
            length = int.from_bytes(stream.read(8), "little")
            part.update(stream.read(min(length, WHOLE_BYTES)))
        for index in range(CHUNKS):
            stream.seek((size - CHUNK_BYTES) * index // (CHUNKS - 1))
            part.update(stream.read(CHUNK_BYTES))
    return f"{size} {part.hexdigest()}"


def _first_ids(ids: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in islice(ids, 2))
