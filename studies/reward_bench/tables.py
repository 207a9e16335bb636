"""The reward bench as words: a table for the terminal, and the block of Markdown that the documentation shows.

Numbers in, text out: measures nothing. No torch.
"""

from probes.errors import counted
from studies.bench_cells import verdict
from studies.bench_tables import MEGABYTE, failure, least_to_most, markdown_table, with_interval
from studies.reward_bench.config import ARMS, KINDS, THROUGHPUT_BAR, RewardBench
from studies.reward_bench.results import RewardCell, RewardResults

__all__ = ["markdown", "print_reward"]


def print_reward(results: RewardResults) -> None:
    """Print the results as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    # Seconds and megabytes only where a line has room for them: ratios are what is asked.
    roomy = console.width >= 120
    table = Table(title="A training step over the one that it stands beside")
    table.add_column("training")
    table.add_column("beside")
    names = ("time [95 %]", "cpu", "peak", "own peak", *(("seconds (other)", "peak MB (other)") if roomy else ()))
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("bars")
    for cell in results.cells:
        absolute = (
            f"{cell.seconds:.2f} ({cell.plain_seconds:.2f})",
            f"{cell.peak / MEGABYTE:.0f} ({cell.plain_peak / MEGABYTE:.0f})",
        )
        table.add_row(
            KINDS[cell.kind].label,
            KINDS[cell.kind].against.replace("`", ""),
            with_interval(cell.time),
            *(f"{ratio:.2f}" for ratio in (cell.cpu_ratio, cell.peak_ratio, cell.increment_ratio)),
            *(absolute if roomy else ()),
            "\n".join(f"{name} {found}" for name, found in _verdicts(cell).items()),
        )
    console.print(table)
    for cell in results.cells:
        if cell.error:
            console.print(f"{KINDS[cell.kind].label}: {failure(cell, results.config.memory_limit)}", soft_wrap=True)


def markdown(results: RewardResults) -> str:
    """The documentation's block: a row for each comparison, then what was trained, how, and on what."""
    config = results.config
    time = f"time, {counted(config.threads, 'thread')} [95 %]"
    peak = f"peak memory, {counted(config.processes, 'process')} each"
    head = ["Training", "beside", "pairs of steps", time, "processor time", peak, "beyond the loaded model", "bars"]
    lines = markdown_table(head, [_columns(config, cell) for cell in results.cells])
    return "\n".join([*lines, "", _measured(results), "", _trained(results)])


def _columns(config: RewardBench, cell: RewardCell) -> list[str]:
    kind = KINDS[cell.kind]
    if cell.error:
        why = failure(cell, config.memory_limit).replace("|", "/")
        return [kind.label, kind.against, "–", why, "–", "–", "–", _bars(cell)]
    throughput = f"; steps a second {with_interval(cell.throughput)}" if cell.kind == "text" else ""
    others = (f"{ratio:.2f}" for ratio in (cell.cpu_ratio, cell.peak_ratio, cell.increment_ratio))
    time = f"{with_interval(cell.time)}{throughput}"
    return [kind.label, kind.against, str(cell.time.n), time, *others, _bars(cell)]


def _bars(cell: RewardCell) -> str:
    """The bars of a comparison, and what became of each."""
    kind = KINDS[cell.kind]
    bars = {"time": kind.time_bar, "memory": kind.memory_bar}
    names = {name: f"{name} {bar:.2f}" for name, bar in bars.items() if bar is not None}
    if cell.kind == "text":
        names["time"] = f"steps a second at least {THROUGHPUT_BAR}"
    return "; ".join(f"{names[name]}: {found}" for name, found in _verdicts(cell).items()) or "none"


def _verdicts(cell: RewardCell) -> dict[str, str]:
    """What became of each bar: of time by its interval; of memory, which has none, by the ratio."""
    kind = KINDS[cell.kind]
    found: dict[str, str] = {}
    if kind.time_bar is not None:
        found["time"] = verdict(cell.time, kind.time_bar)
    if kind.memory_bar is not None:
        found["memory"] = verdict(cell.peak_ratio, kind.memory_bar)
    return dict.fromkeys(found, "not measured") if cell.error else found


def _measured(results: RewardResults) -> str:
    machine, cells = results.machine, results.cells
    names = ("torch", "transformers", "trl", "peft")
    versions = ", ".join(f"{name} {machine[name]}" for name in names if machine.get(name))
    pairs = [cell.time.n for cell in cells if not cell.error] or [0]
    steps = [cell.plain_seconds for cell in cells if not cell.error] or [0.0]
    where = {"cpu": "CPU", "cuda": "GPU", "auto": "GPU if there is one, else CPU"}[results.config.device]
    return (
        f"Ratios over the training beside it: of the time of a step, medians of {least_to_most(pairs, 'd')} pairs of "
        "steps that alternated in one process, batches and logging included, with the exact interval of a median; of "
        "its processor time, which other work on the machine disturbs less; and of peak memory, of "
        f"{counted(results.config.processes, 'process')} a training, with and without the libraries and weights that "
        "are there before the first step. A bar of time holds where the whole interval is within it, is missed where "
        "all of it is beyond, and is undecided otherwise; memory has no interval. Steps beside it took "
        f"{least_to_most(steps, '.2f')} s in {results.config.dtype} on {machine.get('cores')} cores, "
        f"{counted(results.config.threads, 'thread')} (device: {where}; {versions}). TRL tokenizes before training, "
        "which is not timed; ours renders and tokenizes in every step, which is."
    )


def _trained(results: RewardResults) -> str:
    config = results.config
    kinds = [cell.kind for cell in results.cells]
    said = []
    if "text" in kinds:
        said.append(
            f"Text: a random Llama classifier (hidden {config.text_hidden}, {config.text_layers} layers), "
            f"{config.text_batch} pairs a step of about {config.text_tokens} tokens a conversation, every weight "
            "trained."
        )
    if any(ARMS[kind].reads == "images" for kind in kinds):
        said.append(
            f"Images: a random LLaVA classifier (decoder of hidden {config.hidden}, {config.layers} layers), "
            f"{counted(config.batch, 'pair')} a step, {config.image_tokens} of about {config.tokens} tokens a "
            f"conversation are the image's. With LoRA, adapters of rank {config.lora} on all linear layers of the "
            "decoder are trained, and the head; a branch has its own on the same frozen weights. Otherwise all but the "
            "image encoder is trained, and a full copy as the proxy doubles that."
        )
    return " ".join(said)
