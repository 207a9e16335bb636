"""One process of the capture bench: a fixed random decoder, one forward under a memory limit, and timed pairs.

Knows nothing of cells, medians or bars; imports torch only where a process runs.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PLAIN, RECORDED, EAGER = "plain", "rows", "eager"


@dataclass(frozen=True)
class CaptureBench:
    """What is measured.

    Args:
        lengths: Prompt lengths in tokens.
        rows: Numbers of query rows that are recorded.
        eager_lengths: Lengths at which eager attention with `output_attentions` runs too.
        repeats: Timed pairs per cell.
        processes: Pairs of processes per cell, for memory; the timed pairs are shared out among them.
        memory_limit: Bytes of address space that a cell may take beyond what it has when its model is loaded.
        images: Images in the prompt; their tokens are three quarters of the columns.
        threads: torch threads.
        hidden: Hidden size of the decoder.
        layers: Its layers.
        heads: Its heads.
        key_value_heads: Its key-value heads.
        seed: Seed of its weights.
        out: Where the results are written as JSON, anew after every cell; None writes nothing.
        resume: Go on from what an interrupted bench left in ``out``.
        overwrite: Replace what ``out`` holds, cell by cell.
    """

    lengths: tuple[int, ...] = (1024, 4096, 8192)
    rows: tuple[int, ...] = (64, 1)
    eager_lengths: tuple[int, ...] = (1024, 4096)
    repeats: int = 9
    processes: int = 3
    memory_limit: int = 12 * 2**30
    images: int = 8
    threads: int = 2
    hidden: int = 512
    layers: int = 8
    heads: int = 8
    key_value_heads: int = 2
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Run:
    """One process: its memory, and the pairs of forwards timed in it afterwards.

    Args:
        peak: Peak resident bytes after the first forward.
        loaded: Resident bytes before it, model and inputs loaded.
        seconds: Wall clock of each timed forward of this kind.
        plain_seconds: Of the plain forward beside each.
        cpu_seconds: Processor time of each timed forward, over all threads.
        plain_cpu_seconds: Of the plain forward beside each.
        error: Why the process failed.
    """

    peak: float = float("nan")
    loaded: float = float("nan")
    seconds: tuple[float, ...] = ()
    plain_seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    plain_cpu_seconds: tuple[float, ...] = ()
    error: str | None = None


def in_process(config: CaptureBench, kind: str, length: int, rows: int, pairs: int) -> Run:
    """Run one kind of forward in a process of its own.

    Args:
        config: The decoder and the limits.
        kind: "plain", "rows" (recorded) or "eager" (with `output_attentions`).
        length: Tokens.
        rows: Query rows recorded.
        pairs: Timed pairs of this kind and plain, after the forward whose memory is measured.

    Returns:
        The run; one that failed carries its error instead of numbers.
    """
    cell = {"kind": kind, "length": length, "rows": rows, "pairs": pairs}
    task = {"config": {**asdict(config), "out": None}, "cell": cell}
    environment = {**os.environ, "OMP_NUM_THREADS": str(config.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from studies.bench_process import main; main(sys.argv[1])",
            json.dumps(task),
        ],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        short = "memory limit reached" if "memory" in last[-1].lower() or done.returncode < 0 else last[-1]
        return Run(error=short)
    return Run(**json.loads(done.stdout.strip().splitlines()[-1]))


def main(task: str) -> None:
    """Run one process's share of a cell here, and print it as a line of JSON."""
    given = json.loads(task)
    settings: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in given["config"].items()}
    config = CaptureBench(**settings)
    print(json.dumps(asdict(run_here(config, **given["cell"]))))


def run_here(config: CaptureBench, kind: str, length: int, rows: int, pairs: int) -> Run:
    """What `in_process` runs; limits this process's memory for good."""
    import torch

    torch.set_num_threads(config.threads)
    model = _decoder(config)
    generator = torch.Generator().manual_seed(config.seed)
    inputs = {"inputs_embeds": torch.randn(1, length, config.hidden, generator=generator)}
    spans = image_spans(length, config.images)
    # A short forward first, so that one-off allocations of torch and of ours are in neither figure.
    for name in (PLAIN, kind):
        _once(model, {"inputs_embeds": inputs["inputs_embeds"][:, :64]}, name, [60, 63], [(0, 16)])
    limit_memory(config.memory_limit)
    with contextlib.suppress(OSError):
        # What loading took at its height is forgotten where the kernel allows it.
        Path("/proc/self/clear_refs").write_text("5")
    loaded = resident("VmRSS")
    _once(model, inputs, kind, list(range(length - rows, length)), spans)
    peak = resident("VmHWM")
    clocks: dict[str, list[tuple[float, float]]] = {PLAIN: [], kind: []}
    for pair in range(pairs):
        for name in (PLAIN, kind) if pair % 2 == 0 else (kind, PLAIN):
            start, start_cpu = time.perf_counter(), time.process_time()
            _once(model, inputs, name, list(range(length - rows, length)), spans)
            clocks[name].append((time.perf_counter() - start, time.process_time() - start_cpu))
    wall, cpu = zip(*clocks[kind], strict=True) if pairs else ((), ())
    plain_wall, plain_cpu = zip(*clocks[PLAIN], strict=True) if pairs else ((), ())
    return Run(peak, loaded, wall, plain_wall, cpu, plain_cpu)


def _once(model: Any, inputs: dict[str, Any], kind: str, rows: list[int], spans: list[tuple[int, int]]) -> None:
    import torch

    from probes.attention import attention_factors

    if kind == RECORDED:
        attention_factors(model, inputs, rows, spans)
        return
    model.set_attn_implementation(EAGER if kind == EAGER else "sdpa")
    with torch.no_grad():
        model(**inputs, use_cache=False, output_attentions=kind == EAGER)


def _decoder(config: CaptureBench) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(config.seed)
    settings = LlamaConfig(
        vocab_size=1024,
        hidden_size=config.hidden,
        intermediate_size=4 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        max_position_embeddings=max(config.lengths),
        attn_implementation="sdpa",
    )
    return LlamaModel(settings).eval()


def image_spans(length: int, images: int) -> list[tuple[int, int]]:
    """Columns of evenly spaced images that take three quarters of a prompt, with text between and behind them.

    >>> image_spans(64, 2)
    [(4, 28), (32, 56)]
    """
    size = 3 * length // (4 * images)
    gap = (length - size * images) // (2 * images)
    return [(gap + image * (size + gap), gap + image * (size + gap) + size) for image in range(images)]


def resident(name: str) -> float:
    """Bytes of a line of /proc/self/status (VmRSS, VmHWM, VmSize); elsewhere the peak that getrusage knows."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def limit_memory(limit: int) -> None:
    """Let this process map at most `limit` bytes more than it has; macOS knows no such limit."""
    if Path("/proc/self/status").exists():
        bound = int(resident("VmSize")) + limit
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
