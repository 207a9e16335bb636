"""What a training run needs before its first step: usable pairs, a model with its proxy, an objective, an identity.

It loads and checks; it trains nothing and writes nothing.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from probes.inputs import InputError
from rewardmodels.records import PreferencePair
from studies.bundled import BUNDLED, model_source
from studies.reward.adapting import with_branches
from studies.reward.data import Given, judge_bad, read_given
from studies.reward.folder import RECORD, STUDY, read_record
from studies.reward.settings import objective_of
from studies.run_folder.manifest import Manifest

if TYPE_CHECKING:
    from rewardmodels.bradley_terry import Objective
    from rewardmodels.model import RewardModel
    from rewardmodels.proxies import Branches
    from studies.auditing.processes import Processes
    from studies.reward.train import TrainConfig

_NOT_THE_RUN = (
    *("out", "resume", "overwrite", "device", "log_to", "save_every", "keep"),
    *("trust_remote_code", "allow_pickle", "accumulate", "gradient_checkpointing"),
)
"""Options that do not decide what is learned."""


@dataclass(frozen=True)
class Prepared:
    """A run before its first step: nothing has been written yet."""

    reward: "RewardModel"
    pairs: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]
    branches: "Branches | None"
    objective: "Objective"
    steps: int
    manifest: Manifest
    given: Given
    given_held_out: Given | None
    told: Mapping[str, Any] = field(default_factory=dict)
    """What became of the data, for `train.json`."""

    @property
    def left_out(self) -> int:
        """Rows and pairs that could not be used."""
        return int(self.told["unusable"])


def prepare(config: "TrainConfig", processes: "Processes") -> Prepared:
    """Read the data, load the model, and take out the pairs that it cannot read.

    Raises:
        InputError: If data, model or options cannot be used, or pairs are bad and --on-bad refuses them.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from rewardmodels.model import RewardModel
    from studies.auditing.inputs import model_digest

    disable_progress_bar()
    given = read_given(
        config.data,
        "train",
        format=config.format,
        chosen_split=config.split,
        subset=config.subset,
        image_root=config.image_root,
        limit=config.limit,
        seed=config.seed,
    )
    asked = config.eval_data or (BUNDLED if config.data == BUNDLED else None)
    held_out = None if asked is None else read_given(asked, "test", chosen_split=config.eval_split)
    for each in (given, *([held_out] if held_out else [])):
        print(f"{each.name}: {_listed(each.counts())}; {each.why}", file=sys.stderr)
    torch.manual_seed(config.seed)
    reward = RewardModel.from_base(
        model_source(config.model),
        max_length=config.max_length,
        seed=config.seed,
        dtype=torch.bfloat16 if config.dtype == "bfloat16" else torch.float32,
        device="cpu",
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
    )
    digest = model_digest(model_source(config.model), cast(Any, reward))
    known = _known_unusable(config)
    pairs, unusable = _usable(reward, given.pairs, known, processes, "checking pairs")
    checked, unusable_held_out = _usable(
        reward, held_out.pairs if held_out else (), known, processes, "checking held-out pairs"
    )
    bad = [*given.bad, *(held_out.bad if held_out else ()), *unusable.items(), *unusable_held_out.items()]
    judge_bad(bad, config.on_bad)
    if not pairs:
        raise InputError(f"{config.data}: none of its {len(given.pairs)} pairs can be used; {bad[0][0]}: {bad[0][1]}")
    steps = config.steps or max(1, math.ceil(math.ceil(len(pairs) / config.batch_size) * config.epochs))
    branches = with_branches(config, reward)
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_THE_RUN}
    manifest = Manifest(
        config={"study": STUDY, **settings, "learning_rate": config.rate},
        batches=steps,
        seeds={"seed": config.seed},
        model_digest=digest,
        data_digest=given.digest if held_out is None else f"{given.digest} {held_out.digest}",
    )
    told = {
        "train": given.counts(),
        "held_out": held_out.counts() if held_out else None,
        "unusable": len(bad),
        "unusable_pairs": {**unusable, **unusable_held_out},
        "first": [f"{name}: {reason}" for name, reason in bad[:10]],
    }
    return Prepared(
        reward=reward,
        pairs=pairs,
        held_out=checked,
        branches=branches,
        objective=objective_of(config, pairs),
        steps=steps,
        manifest=manifest,
        given=given,
        given_held_out=held_out,
        told=told,
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _known_unusable(config: "TrainConfig") -> Mapping[str, str] | None:
    """What an interrupted run found, so that no image is opened again; its digests are compared later."""
    if not config.resume or not (config.out / RECORD).is_file():
        return None
    data = read_record(config.out)[1].get("data")
    found = data.get("unusable_pairs") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else None


def _usable(
    reward: "RewardModel",
    pairs: tuple[PreferencePair, ...],
    known: Mapping[str, str] | None,
    processes: "Processes",
    label: str,
) -> tuple[tuple[PreferencePair, ...], dict[str, str]]:
    """The pairs that the model can read, and why the others cannot be read; each process looks at its share."""
    from rewardmodels.batching import why_unusable
    from studies.auditing.processes import ALONE
    from studies.auditing.progress import Counter

    if known is not None:
        found = {pair.id: known[pair.id] for pair in pairs if pair.id in known}
        return tuple(pair for pair in pairs if pair.id not in found), found
    mine = processes.share(pairs)
    found = {}
    with Counter(label, len(mine)) as counter:
        for pair in mine:
            reason = why_unusable(reward, pair)
            if reason is not None:
                found[pair.id] = reason
            counter.advance(1)
    if processes != ALONE:
        from accelerate.utils import gather_object

        found = {name: reason for part in gather_object([found]) for name, reason in part.items()}
    ordered = {pair.id: found[pair.id] for pair in pairs if pair.id in found}
    return tuple(pair for pair in pairs if pair.id not in ordered), ordered
