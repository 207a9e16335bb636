"""Computes the batches of a plan and writes each to the run folder. It knows models; it draws and averages nothing.

A sample that cannot be asked becomes a row with its error, and the rest of its batch goes on; so it does where only
the causal check or the hidden attention of a sample fails.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from probes.inputs import ImageRef, InputError
from probes.scores import RULES, focus
from studies.auditing import causal
from studies.auditing.image_facts import ImageFacts
from studies.auditing.inputs import Refusal
from studies.auditing.memory import one_line_refusal, ran_out
from studies.auditing.mixers import MEASURES, Mixers, followed
from studies.auditing.plan import Batch
from studies.auditing.processes import ALONE, Processes
from studies.auditing.progress import Counter
from studies.auditing.tables import Tables, effect_rows
from studies.multi_image import MultiImageQuestion
from studies.position import is_anchored

if TYPE_CHECKING:
    from probes.model import HookedModel, Question, Trace
    from studies.runs import RunFolder

PREFLIGHT_MODEL_ERRORS = 8
"""Samples that the model itself may fail on before anything is written; one that works is enough."""

IMAGE_THREADS = 4
"""Images that are encoded and written at once."""

TEXT_ROWS = ("paper", "predicting")


class _Recording(TypedDict, total=False):
    mixer_forms: tuple[str, ...]
    mixer_layers: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """How samples are asked and what of each is kept."""

    max_new_tokens: int = 32
    per_head: bool = False
    maps: Literal["errors", "sample", "all", "none"] = "errors"
    map_ids: frozenset[str] = frozenset()
    """Samples whose maps are kept under `maps="sample"`."""
    pairing: causal.Pairing = causal.NOTHING
    """Samples of the causal check."""
    answers: Mapping[str, str] | None = None
    """Given answers by sample id; None generates them greedily."""
    mixers: Mixers = field(default_factory=Mixers)
    """Layers without softmax whose hidden attention is recorded."""


def preflight(model: "HookedModel", records: Sequence[MultiImageQuestion], settings: Settings) -> Mixers:
    """Ask samples until one works, before anything is written, so that a model that cannot work is refused in one line.

    A sample that cannot be put to the model at all, with a broken image for example, says nothing of the model: it is
    passed over, and gets its row with the reason in the run itself.

    Returns:
        The settings' mixers; those that could not be followed are refused among them. They keep no model from being
        audited.

    Raises:
        InputError: If the model's attention cannot be read, if it fails on the first samples that can be put to it, or
            if none can; gives the first reason.
        MemoryError: If a single sample does not fit in memory.
    """
    bad: list[InputError] = []
    failed: list[InputError] = []
    for record in records:
        answers = None if settings.answers is None else [settings.answers[record.id]]
        try:
            model.encode([_question(record)], answers, reserve=0 if answers else settings.max_new_tokens)
        except InputError as error:
            bad.append(error)
            continue
        try:
            with one_line_refusal(1):
                return _preflight_one(model, _question(record), answers, settings.mixers)
        except InputError as error:
            failed.append(error)
            if _is_unsupported(error) or len(failed) == PREFLIGHT_MODEL_ERRORS:
                break
    if failed or bad:
        raise (failed or bad)[0]
    return settings.mixers


def _preflight_one(model: "HookedModel", question: "Question", answers: Sequence[str] | None, mixers: Mixers) -> Mixers:
    def ask(some: Mixers) -> object:
        rows = ("predicting",)
        return model.trace_batch([question], answers, max_new_tokens=1, rows=rows, maps=False, **_recording(some))

    return followed(ask, mixers)


def _recording(mixers: Mixers) -> _Recording:
    """What `HookedModel.trace_batch` is told of mixers."""
    return {"mixer_forms": tuple(MEASURES), "mixer_layers": tuple(mixers.read)} if mixers.read else {}


def _is_unsupported(error: InputError) -> bool:
    from probes.attention import UnsupportedAttention

    return isinstance(error, UnsupportedAttention)


@dataclass(frozen=True)
class Work:
    """What is to be done: the plan, and everything that its batches name."""

    plan: Sequence[Batch]
    records: Mapping[str, MultiImageQuestion]
    """Samples to trace, by id."""
    refused: Mapping[str, Refusal]
    """Samples that cannot be asked, by id."""
    settings: Settings
    facts: ImageFacts


def run_batches(
    model: "HookedModel", work: Work, folder: "RunFolder", label: str, processes: Processes = ALONE
) -> None:
    """Compute and write every batch that the folder lacks, shared out over processes; returns when all are written.

    Args:
        model: The model under audit.
        work: What is to be done; batches that the folder has are skipped.
        folder: Where to write.
        label: What the progress line calls this.
        processes: Who does the work; the main process draws the progress of all.

    Raises:
        MemoryError: If a batch does not fit in memory.
    """
    missing = processes.agreed(folder.missing_batches())
    with (
        _progress(label, work.plan, missing, folder, processes) as advance,
        ThreadPoolExecutor(IMAGE_THREADS) as pool,
    ):
        keeper = _Keeper(folder, work.facts, pool)
        for batch in (work.plan[index] for index in processes.share(missing)):
            tables = Tables(work.facts)
            if batch.kind == "refused":
                for name in batch.ids:
                    record, error = work.refused[name].record, work.refused[name].error
                    tables.add_failed(name, record, error)
                    keeper.keep(() if record is None else record.images)
            else:
                _trace_batch(model, [work.records[name] for name in batch.ids], work.settings, keeper, tables)
            keeper.wait()
            folder.write_batch(batch.index, tables.rows)
            advance(batch)


@contextmanager
def _progress(
    label: str, plan: Sequence[Batch], missing: Sequence[int], folder: "RunFolder", processes: Processes
) -> Iterator[Callable[[Batch], None]]:
    """Show how far all processes are; yields what to call after each batch, and waits for the others at the end.

    A process that fails on the way says so at that meeting, so that none waits for it.
    """
    total = sum(len(batch.ids) for batch in plan)
    left = sum(len(plan[index].ids) for index in missing)
    if not processes.is_main:
        with processes.together():
            yield lambda _: None
        return
    with Counter(label, total, total - left) as counter:
        if processes.count == 1:
            yield lambda batch: counter.advance(len(batch.ids))
            return

        def look(_: Batch) -> None:
            if counter.is_due():
                counter.reach(sum(len(plan[index].ids) for index in folder.done_batches()))

        with processes.together():
            yield look
        counter.reach(total)


class _Keeper:
    """Keeps images for the explorer, each once, and passes over those that cannot be decoded.

    Encoding and writing many small files is mostly waiting for the disk, so a few threads do it beside each other.
    """

    def __init__(self, folder: "RunFolder", facts: ImageFacts, pool: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._facts = facts
        self._pool = pool
        self._known: set[str] = set()
        self._saving: list[Future[None]] = []

    def keep(self, images: Sequence[ImageRef]) -> None:
        for image in images:
            digest = self._facts.of(image).digest
            if digest is not None and digest not in self._known:
                self._known.add(digest)
                self._saving.append(self._pool.submit(self._save, image))

    def wait(self) -> None:
        """Return when all images are kept: a batch exists only with its images."""
        for saving in self._saving:
            saving.result()
        self._saving.clear()

    def _save(self, image: ImageRef) -> None:
        # The sample that shows a broken image has a row that says so.
        with suppress(InputError):
            self._folder.save_image(image)


def _trace_batch(
    model: "HookedModel",
    records: list[MultiImageQuestion],
    settings: Settings,
    keeper: "_Keeper",
    tables: Tables,
) -> None:
    start = time.perf_counter()
    asked = _ask(model, records, settings)
    seconds = (time.perf_counter() - start) / len(records)
    for record, (trace, unread) in zip(records, asked, strict=True):
        keeper.keep(record.images)
        if isinstance(trace, InputError):
            tables.add_failed(record.id, record, str(trace))
            continue
        try:
            tables.add_traced(record, trace, seconds)
        except InputError as error:
            tables.add_failed(record.id, record, str(error))
            continue
        if unread is not None:
            tables.note_unread(record.id, unread)
        if keeps_maps(record, trace, settings):
            tables.add_maps(record.id, trace)
        if record.id in settings.pairing.unpaired:
            tables.note_effects_error(settings.pairing.unpaired[record.id])
        elif record.id in settings.pairing.lent and trace.answer_tokens:
            # Mixers that could not be followed in this sample are not cut in it either.
            cuttable = settings.mixers if unread is None else Mixers()
            _add_effects(model, record, trace, settings.pairing.lent[record.id], cuttable, tables)


def _add_effects(
    model: "HookedModel",
    record: MultiImageQuestion,
    trace: "Trace",
    lent: Sequence[ImageRef],
    mixers: Mixers,
    tables: Tables,
) -> None:
    try:
        effects = causal.measure_effects(model, record, trace, lent, mixers)
    except InputError as error:
        tables.note_effects_error(str(error))
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        tables.note_effects_error("out of memory: use a device with more of it, or smaller images")
    else:
        tables.add("effects", effect_rows(record.id, effects))


class _Asked(NamedTuple):
    """What came of asking one sample."""

    trace: "Trace | InputError"
    """Its trace, or the error that keeps it from having one."""
    unread: str | None = None
    """Why its hidden attention could not be read."""


def _ask(model: "HookedModel", records: list[MultiImageQuestion], settings: Settings) -> list[_Asked]:
    try:
        return [_Asked(trace) for trace in trace_records(model, records, settings)]
    except InputError as error:
        if len(records) == 1:
            return [_ask_without_mixers(model, records[0], settings, error)]
    return [result for record in records for result in _ask(model, [record], settings)]


def _ask_without_mixers(
    model: "HookedModel", record: MultiImageQuestion, settings: Settings, error: InputError
) -> _Asked:
    """A sample that failed, asked again without hidden attention if that may have been why."""
    if not settings.mixers.read:
        return _Asked(error)
    try:
        return _Asked(trace_records(model, [record], replace(settings, mixers=Mixers()))[0], str(error))
    except InputError as other:
        return _Asked(other)


def trace_records(model: "HookedModel", records: list[MultiImageQuestion], settings: Settings) -> "list[Trace]":
    """Trace a batch of samples that are alike in their task, as the settings ask.

    Raises:
        InputError: If one of them cannot be traced.
        MemoryError: If they do not fit in memory.
    """
    anchored = is_anchored(records[0])
    with one_line_refusal(len(records)):
        return model.trace_batch(
            [_question(record) for record in records],
            answers=None if settings.answers is None else [settings.answers[record.id] for record in records],
            max_new_tokens=settings.max_new_tokens,
            rows=recorded_rows(records[0]),
            per_head=settings.per_head,
            maps=settings.maps != "none" or any(record.boxes for record in records),
            image_to_image=anchored,
            **_recording(settings.mixers),
        )


def recorded_rows(record: MultiImageQuestion) -> tuple[str, ...]:
    """The row sets that are recorded of a sample."""
    return (*TEXT_ROWS, "anchor") if is_anchored(record) else TEXT_ROWS


def keeps_maps(record: MultiImageQuestion, trace: "Trace", settings: Settings) -> bool:
    """Whether the policy keeps this sample's maps.

    Under "errors" these are wrong answers, and right answers that any focus rule could find right for the wrong
    reason: the run's own rule is fixed only when it ends, so every rule that it may turn out to be is asked.
    """
    from studies.multi_image import answer_correct

    if settings.maps == "sample":
        return record.id in settings.map_ids
    if settings.maps == "errors":
        if answer_correct(record, trace.answer) is False:
            return True
        return record.target is not None and _may_miss(trace, record.target)
    return settings.maps == "all"


def _may_miss(trace: "Trace", target: int) -> bool:
    """Whether the focus is another image than the target under any rule, number of last layers and row set."""
    for factors in trace.factors_by_rows.values():
        by_layer = factors if factors.ndim == 2 else factors.mean(axis=1)
        for last in range(1, len(by_layer) + 1):
            if any(focus(by_layer, rule, last) != target for rule in RULES):
                return True
    return False


def _question(record: MultiImageQuestion) -> "Question":
    from probes.model import Question

    return Question(record.images, record.question)
