"""`sightcheck reward eval`: a scorer in, numbers with rulers and controls beside them out.

It knows options and the order of the work. Importing it loads no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studies.bundled import BUNDLED
from studies.reward.asking import AskOptions, ProxyView, View

if TYPE_CHECKING:
    from rewardmodels.preferences import Preferences
    from studies.reward.asking import Asked
    from studies.reward.evaluating import Evaluated

STUDY = "reward eval"


@dataclass(frozen=True)
class EvalConfig(AskOptions):
    """Question a reward model, a judge, or a file of scores: does it rank by what is seen, or by the text alone?

    Writes OUT/scores.jsonl (every score), OUT/metrics.json (every number with n and interval), OUT/manifest.json and
    OUT/figures, and prints a table. Published benchmarks are told by their columns, and their own numbers added. A file
    that holds RM-Bench scores without texts (--scores alone) gives the style matrix. Several --data are asked in turn;
    with as many --model, each trained on the --data at its place, they give a transfer matrix.
    """

    model: tuple[str, ...] = ()
    """Folder or hub id of the reward model."""
    data: tuple[str, ...] = (BUNDLED,)
    """Preferences: files, folders or hub ids in any format that is read; bundled is the test pairs that come along."""
    out: Path = Path("runs/reward-eval")
    """The folder to write; it must be new, unless --resume is given."""
    views: tuple[View, ...] = ("blank", "shuffled")
    """What is shown in place of the images, beside them; nothing behind --views leaves that out."""
    proxy_model: str | None = None
    """A text-only reward model trained on the same source, for the shortcut-failure degradation; without one the model
    itself on blank images stands in for it."""
    proxy_sees: ProxyView = "blank"
    """What the proxy is shown, where it reads images: give what it was trained on (train --proxy-sees)."""
    proxy_scores: Path | None = None
    """Scores of the text-only model made elsewhere, instead of --proxy-model."""
    attention: int = 0
    """Pairs whose scoring tokens' attention to each image is read, of --model."""
    best_of_n: int = 0
    """Bundled questions to draw a best-of-N curve on: the bundled model answers, the scorer picks."""


def run(config: EvalConfig) -> int:
    """Ask, write and print.

    Returns:
        0 if everything has a score, 1 if some was left out, 130 if interrupted.

    Raises:
        InputError: If arguments, model or data cannot be used, or an answer cannot be scored and is not skipped; what
            was scored before stays.
    """
    from studies.options import say_interrupted
    from studies.overwrite import check_out
    from studies.reward.asking import records_of
    from studies.reward.score_folder import ScoreFolder, manifest_of
    from studies.reward.style_scores import evaluate_styles, holds_style_scores

    check(config)
    check_out(config.out, STUDY, resume=config.resume, overwrite=config.overwrite)
    if config.scores is not None and config.data == (BUNDLED,) and holds_style_scores(config.scores):
        return evaluate_styles(config)
    records = [records_of(config, name) for name in config.data]
    asked = _scorers(config, records)
    proxy = _proxy(config)
    digests = [*(each.digest for each in asked), *([proxy.digest] if proxy else [])]
    manifest = manifest_of(STUDY, config, digests, records)
    with ScoreFolder.opened(config.out, manifest, resume=config.resume, overwrite=config.overwrite) as folder:
        try:
            found = _each(config, asked, proxy, records)
        except KeyboardInterrupt:
            say_interrupted(STUDY, config, "scores")
            return 130
        folder.finish()
    print(f"Written: {config.out}")
    return 1 if any(each.left_out for each in found) else 0


def check(config: EvalConfig) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    from probes.inputs import InputError
    from studies.options import refuse_below
    from studies.reward.asking import check_asking
    from studies.reward.score_folder import refuse_file_name

    check_asking(config, config.model[0] if config.model else None)
    refuse_file_name(config.out)
    refuse_below(config, {"attention": 0, "best_of_n": 0})
    models, sets = len(config.model), len(config.data)
    refusals = {
        "--data names no preferences": not sets,
        f"{models} models need as many --data, each the kind that one was trained on, and there are {sets}": (
            models > 1 and models != sets
        ),
        "--data names one set twice": len(set(config.data)) != sets,
        "--scores are of one set: give one --data": config.scores is not None and sets > 1,
        "--proxy-scores are of one set: give one --data": config.proxy_scores is not None and sets > 1,
        "--proxy-model and --proxy-scores both give the text-only ranking: give one": (
            config.proxy_model is not None and config.proxy_scores is not None
        ),
        "--attention reads the scoring token of a reward model: give --model": config.attention and not models,
        "--best-of-n asks about bundled questions, and not about --data: give it with one set": (
            config.best_of_n and sets > 1
        ),
        "--best-of-n asks about new answers, which a file of scores does not hold": (
            config.best_of_n and config.scores is not None
        ),
    }
    for words, refused in refusals.items():
        if refused:
            raise InputError(words)
    if config.proxy_scores is not None and not config.proxy_scores.exists():
        raise InputError(f"--proxy-scores {config.proxy_scores} does not exist: give the file that holds the scores")


def _scorers(config: EvalConfig, records: "list[Preferences]") -> "list[Asked]":
    from studies.reward.asking import refuse_blind, scorer_of

    asked = [scorer_of(config, name) for name in config.model or (None,)]
    for each in asked:
        for some in records:
            refuse_blind(each, some)
    return asked


def _proxy(config: EvalConfig) -> "Asked | None":
    from studies.reward.asking import scorer_of

    return None if config.proxy_model is None else scorer_of(config, config.proxy_model)


def _each(
    config: EvalConfig, asked: "list[Asked]", proxy: "Asked | None", records: "list[Preferences]"
) -> "list[Evaluated]":
    """Ask every scorer on every set; of one on one, OUT itself is the folder."""
    from studies.reward.entries import print_table
    from studies.reward.evaluating import evaluate
    from studies.reward.transfer import write_transfer

    found = []
    alone = len(asked) == len(records) == 1
    for row, scorer in enumerate(asked):
        for column, (some, data) in enumerate(zip(records, config.data, strict=True)):
            folder = config.out if alone else config.out / f"{row}-{column}"
            each = evaluate(scorer, proxy, some, config, folder, data)
            print_table(f"{scorer.name} on {data}", each.entries, each.notes, each.left_out)
            found.append(each)
    if not alone:
        write_transfer(config.out, [scorer.name for scorer in asked], config.data, found)
    return found
