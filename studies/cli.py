"""The command `sightcheck`: reads arguments, starts one study, turns its outcome into an exit status.

It knows the verbs and where each lives, and nothing of what they compute. Nothing heavy is imported before a verb
is chosen, so that `--help` answers at once.

Exit status: 0 finished; 1 finished, and some samples failed, a bar of `bench` or `compare` was missed, or `doctor` or
`--dry-run` found problems; 2 bad arguments or bad input, with one line on stderr; 70 an error of Sightcheck's own, with
its traceback; 130 interrupted by Ctrl-C.
"""

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from inspect import cleandoc
from typing import Any, NamedTuple

EXIT_DONE = 0
EXIT_SAMPLES_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_CRASHED = 70
"""EX_SOFTWARE of sysexits.h. Python itself would exit with 1, which says that the work was finished."""
EXIT_INTERRUPTED = 130


class Verb(NamedTuple):
    """One verb: the module that holds it, its config dataclass, its function `(config) -> exit status`, help."""

    module: str
    config: str
    function: str
    summary: str
    example: str


VERBS = {
    "audit": Verb(
        "studies.audit",
        "AuditConfig",
        "run",
        "does a model look at the right image before it answers?",
        "sightcheck audit --model path/to/model --data path/to/questions.jsonl --out runs/first --causal 100",
    ),
    "untrained": Verb(
        "studies.untrained",
        "UntrainedConfig",
        "run",
        "the same measure on untrained weights: the line that chance draws",
        "sightcheck untrained --model path/to/model --out runs/untrained --seeds 20",
    ),
    "scaling": Verb(
        "studies.scaling",
        "ScalingConfig",
        "run",
        "audits of models of several sizes, side by side",
        "sightcheck scaling runs/small runs/medium runs/large --out runs/scaling",
    ),
    "compare": Verb(
        "studies.compare",
        "CompareConfig",
        "run",
        "two audits over the same questions, sample by sample; a gate for CI",
        "sightcheck compare runs/before runs/after --fail-under 2 --out runs/compare",
    ),
    "scoreboard": Verb(
        "studies.scoreboard",
        "ScoreboardConfig",
        "run",
        "which instrument names the image that the answer depends on?",
        "sightcheck scoreboard --model path/to/model --data path/to/questions.jsonl --out runs/scoreboard",
    ),
    "routing": Verb(
        "studies.routing.command",
        "RoutingConfig",
        "run",
        "which experts see: routing, specialisation, knock-outs, along training",
        "sightcheck routing --model path/to/model --data path/to/questions.jsonl --out runs/routing --knockout 20",
    ),
    "shortcuts": Verb(
        "studies.shortcuts.command",
        "ShortcutsConfig",
        "run",
        "where shortcut-aware reward learning helps: a map of methods (hours)",
        "sightcheck shortcuts --out runs/shortcuts --seeds 1 --workers 2",
    ),
    "language-shortcut": Verb(
        "studies.language.command",
        "LanguageConfig",
        "run",
        "does a real language model learn a length shortcut as its reward? (minutes)",
        "sightcheck language-shortcut --out runs/language-shortcut --seeds 5",
    ),
    "bench capture": Verb(
        "studies.capture.cli",
        "CaptureBench",
        "run",
        "what recording attention costs beside a plain forward pass",
        "sightcheck bench capture --lengths 1024 4096 --out runs/capture.json",
    ),
    "doctor": Verb(
        "studies.doctor.command",
        "DoctorConfig",
        "run",
        "before a long audit: machine, model, tokens, memory and time",
        "sightcheck doctor --model path/to/model --data path/to/questions.jsonl",
    ),
    "bench scale": Verb(
        "studies.bench_scale",
        "ScaleBench",
        "run",
        "time and memory of an audit over a hundred thousand questions",
        "sightcheck bench scale --rows 1000 10000 --out runs/scale.json",
    ),
    "bench reward": Verb(
        "studies.reward_bench.cli",
        "RewardBench",
        "run",
        "what training a reward model costs beside TRL's trainer, and with a text-only proxy",
        "sightcheck bench reward --kinds text branch-removed --out runs/reward.json",
    ),
    "bench inside": Verb(
        "studies.inside_bench.cli",
        "InsideBench",
        "run",
        "what hidden attention and routing cost beside a plain forward pass, and whether both are exact",
        "sightcheck bench inside --kinds routing --lengths 1024 4096 --out runs/inside.json",
    ),
    "reward train": Verb(
        "studies.reward.train",
        "TrainConfig",
        "run",
        "train a reward model on preference pairs with images",
        "sightcheck reward train --model path/to/model --data path/to/pairs.jsonl --out runs/reward",
    ),
    "reward eval": Verb(
        "studies.reward.evaluate",
        "EvalConfig",
        "run",
        "does a reward model, a judge or a file of scores rank by what is seen?",
        "sightcheck reward eval --model runs/reward/model --data path/to/pairs.jsonl --out runs/eval --attention 200",
    ),
    "reward score": Verb(
        "studies.reward.score",
        "ScoreConfig",
        "run",
        "a score for every answer, one line each",
        "sightcheck reward score --model runs/reward/model --data path/to/pairs.jsonl --out runs/scores",
    ),
    "reward convert": Verb(
        "studies.reward.convert",
        "ConvertConfig",
        "run",
        "a value-head checkpoint as a reward model that loads everywhere",
        "sightcheck reward convert --model path/to/old --out runs/converted",
    ),
    "reward card": Verb(
        "studies.reward.card",
        "CardConfig",
        "run",
        "the model card of a reward model, with the numbers of evaluations",
        "sightcheck reward card --model runs/reward/model --eval runs/eval --write",
    ),
    "reward published": Verb(
        "studies.reward.published",
        "PublishedConfig",
        "run",
        "what the text alone tells in published scores, preferences and tables",
        "sightcheck reward published scores.json pairs.jsonl --out runs/published",
    ),
    "app": Verb(
        "studies.cli_app",
        "AppConfig",
        "run",
        "the explorer, in the browser",
        "sightcheck app --runs runs",
    ),
}


class CommandError(ValueError):
    """Bad arguments; the message is the one line that the user sees."""


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command as a process of its own: returns the exit status, whatever happens.

    Args:
        arguments: what follows `sightcheck` on the command line; None reads `sys.argv`.
    """
    try:
        status = main(arguments)
    except Exception:
        traceback.print_exc()
        status = EXIT_CRASHED
    except SystemExit as left:
        if not isinstance(left.code, int):
            raise
        status = left.code
    shared = sys.modules.get("studies.auditing.processes")
    if shared is not None:
        shared.end(status)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors of our own are raised.

    Args:
        arguments: what follows `sightcheck` on the command line; None reads `sys.argv`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("sightcheck: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_DONE
    except Exception as error:
        if not _is_input_error(error):
            raise
        print(f"sightcheck: {_one_line(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT


def usage() -> str:
    """The text of `sightcheck --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: sightcheck VERB [options]\n\n"
        "Find out whether a multimodal model looks at the image before it answers.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n  -h, --help  show this message; after a verb, its options\n  --version   show the version\n\n"
        f"example:\n  {VERBS['audit'].example}\n"
    )


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(), end="", file=sys.stdout if words else sys.stderr)
        return EXIT_DONE if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        print(f"sightcheck {version()}")
        return EXIT_DONE
    name, rest = _split_verb(words)
    verb = VERBS[name]
    module = import_module(verb.module)
    config = parse(getattr(module, verb.config), rest, prog=f"sightcheck {name}", example=verb.example)
    if config is None:
        return EXIT_DONE
    status: int = getattr(module, verb.function)(config)
    return status


def _split_verb(words: list[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in VERBS:
            return name, words[length:]
    family = [name for name in VERBS if name.split()[0] == words[0]]
    if family and (len(words) == 1 or words[1] in ("-h", "--help")):
        return family[0], ["--help"]
    known = ", ".join(family or VERBS)
    raise CommandError(f"no verb '{' '.join(words[: 2 if family else 1])}'; there are: {known} (see sightcheck --help)")


def parse(config: type[Any], arguments: Sequence[str], prog: str, example: str) -> Any | None:
    """Read arguments into a config dataclass; None when they asked for help, which has then been printed.

    Raises:
        CommandError: what is wrong with the arguments, in one line.
    """
    import tyro

    description = f"{cleandoc(config.__doc__ or '')}\n\nExample: {example}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                config,
                prog=prog,
                description=description,
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise CommandError(f"{_first_paragraph(complaint.getvalue())} (see {prog} --help)") from None


def version() -> str:
    """The installed version; "0+source" when run from a folder that was never installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("sightcheck")
    except PackageNotFoundError:
        return "0+source"


def _is_input_error(error: Exception) -> bool:
    if isinstance(error, CommandError | MemoryError):
        return True
    inputs = sys.modules.get("probes.inputs")
    return inputs is not None and isinstance(error, inputs.InputError)


def _first_paragraph(box: str) -> str:
    """What a boxed message of the argument parser says, on one line, without its frame."""
    lines: list[str] = []
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if text.startswith("─") and not lines:
            continue
        if not text or set(text) == {"─"}:
            break
        lines.append(text)
    return _one_line(" ".join(lines)).rstrip(".") or "bad arguments"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


if __name__ == "__main__":
    sys.exit(command())
