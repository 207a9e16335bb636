"""The end of a training run: the model exported, held-out pairs scored by what was exported, the card written.

It knows which numbers go where; how each is computed is `rewardmodels`.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.estimates import Estimate
from probes.files import write_bytes, write_json
from rewardmodels.card_facts import facts_of
from rewardmodels.card_numbers import Measured
from rewardmodels.cards import CardFacts, write_card
from rewardmodels.model import META_FILE, RewardModel
from studies.reward.exporting import export_whole
from studies.reward.folder import MODEL, PROXY
from studies.reward.scoring import Scored, score_pairs

if TYPE_CHECKING:
    from studies.reward.folder import TrainFolder
    from studies.reward.parts import Prepared
    from studies.reward.train import TrainConfig

SAMPLE = 256
"""Training pairs that mean and deviation of the scores are of."""
HELD_OUT = "held_out.jsonl"


class Results(NamedTuple):
    """What was measured, and the scores that it was measured from."""

    measured: tuple[Measured, ...]
    rows: list[dict[str, Any]]


def card_of(config: "TrainConfig", prepared: "Prepared", step: int) -> CardFacts:
    """What is known of a model after a step, before anything is measured."""
    counts = {"pairs trained on": len(prepared.pairs), "ties left out": prepared.given.ties}
    counts |= {"responses not ranked": prepared.given.unranked, "rows or pairs unusable": prepared.left_out}
    proxy = "" if config.proxy == "none" else f"{config.proxy}, sees images {config.proxy_sees}"
    options = {"exponent": config.exponent, "floor": config.floor, "group step": config.group_step}
    options |= {"ranking": config.ranking, "contrast": config.contrast}
    return facts_of(
        prepared.reward,
        f"{config.out.resolve().name}, step {step} of {prepared.steps}",
        data=config.data,
        data_digest=prepared.given.digest,
        counts=counts,
        training={
            "objective": config.objective,
            **options,
            "normalised": config.normalize or None,
            "text-only proxy": proxy,
            "steps": step,
            "pairs a step": config.batch_size,
            "learning rate": config.rate,
            "LoRA": f"rank {config.lora} on {', '.join(config.lora_targets)}" if config.lora else "",
            "not trained": config.freeze,
            "seed": config.seed,
        },
    )


def conclude(config: "TrainConfig", prepared: "Prepared", folder: "TrainFolder") -> None:
    """Export, measure, write and print."""
    model = _export(prepared, folder.path)
    reward = RewardModel.from_pretrained(model, max_length=config.max_length, device=config.device)
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.choice(len(prepared.pairs), min(SAMPLE, len(prepared.pairs)), replace=False))
    seen = score_pairs(reward, [prepared.pairs[place] for place in chosen], config.batch_size, "scoring training pairs")
    scores = np.concatenate([seen.chosen, seen.rejected])
    reward.meta = replace(
        reward.meta,
        data=prepared.given.digest,
        mean=float(scores.mean()),
        deviation=float(scores.std()),
    )
    write_json(model / META_FILE, asdict(reward.meta))
    results = _held_out(config, prepared, reward, folder.path) if prepared.held_out else Results((), [])
    if results.rows:
        write_bytes(folder.path / HELD_OUT, "".join(f"{json.dumps(row)}\n" for row in results.rows).encode())
    facts = replace(
        card_of(config, prepared, prepared.steps),
        name=config.out.resolve().name,
        mean=reward.meta.mean,
        deviation=reward.meta.deviation,
        scored=f"{len(seen.chosen):,} training pairs' responses",
        measured=results.measured,
    )
    write_card(model, facts)
    folder.write({"measured": [asdict(entry) for entry in results.measured]})
    _print(folder.path, prepared, results)


def _export(prepared: "Prepared", out: Path) -> Path:
    """Write the model, and the proxy that was trained along, each whole or not at all."""
    reward = prepared.reward
    reward.meta = replace(reward.meta, data=prepared.given.digest)
    export_whole(out / MODEL, reward)
    if prepared.branches is not None and prepared.branches.trains_proxy:
        export_whole(out / PROXY, RewardModel(prepared.branches.proxy_classifier(), reward.processor, reward.meta))
    return out / MODEL


def _held_out(config: "TrainConfig", prepared: "Prepared", reward: RewardModel, out: Path) -> Results:
    from rewardmodels.pair_report import pair_report
    from rewardmodels.perturbations import perturbation

    pairs = prepared.held_out
    where = f"{config.eval_data or config.data} (held out)"
    clusters = np.array([pair.cluster for pair in pairs])
    groups = np.array([pair.group or "all" for pair in pairs])
    found = score_pairs(reward, pairs, config.batch_size, "scoring held-out pairs")
    report = pair_report(
        *(found.chosen, found.rejected, found.chosen_lengths, found.rejected_lengths),
        groups=groups,
        clusters=clusters,
        seed=config.seed,
    )
    told: dict[str, Estimate] = {"pair accuracy": report.accuracy.micro}
    if len(report.accuracy.groups) > 1:
        told |= {f"pair accuracy, {name}": estimate for name, estimate in report.accuracy.groups.items()}
    told |= {f"{name} ruler": report.rulers.rulers[name] for name in ("longer", "shorter")}
    told["length correlation at fixed quality"] = report.length_correlation
    blank: Scored | None = None
    if reward.sees and any(turn.images for pair in pairs for turn in pair.prompt):
        blank = score_pairs(reward, pairs, config.batch_size, "the same with blank images", view="blank")
        without = perturbation(found.chosen, found.rejected, blank.chosen, blank.rejected, clusters, seed=config.seed)
        told |= {"accuracy with blank images": without.after, "accuracy drop with blank images": without.drop}
    text: Scored | None = None
    if prepared.branches is not None and prepared.branches.trains_proxy:
        text, more = _beside_proxy(config, prepared, found, out)
        told |= more
    measured = tuple(Measured.of(name, where, estimate) for name, estimate in told.items())
    rows = [
        {
            "id": pair.id,
            "group": pair.group,
            "chosen": found.chosen[place],
            "rejected": found.rejected[place],
            "chosen_length": int(found.chosen_lengths[place]),
            "rejected_length": int(found.rejected_lengths[place]),
            **_more("blank", blank, place),
            **_more("proxy", text, place),
        }
        for place, pair in enumerate(pairs)
    ]
    return Results(measured, rows)


def _beside_proxy(
    config: "TrainConfig", prepared: "Prepared", found: Scored, out: Path
) -> tuple[Scored, dict[str, Estimate]]:
    """How the text-only proxy does on the same pairs, and the shortcut-failure degradation."""
    from rewardmodels.degradation import shortcut_failure_degradation
    from rewardmodels.evaluation import pair_accuracy

    proxy = RewardModel.from_pretrained(out / PROXY, max_length=config.max_length, device=config.device)
    pairs = prepared.held_out
    text = score_pairs(proxy, pairs, config.batch_size, "scoring by the proxy", view=config.proxy_sees)
    clusters = np.array([pair.cluster for pair in pairs])
    return text, {
        "pair accuracy of the text-only proxy": pair_accuracy(text.chosen, text.rejected, clusters),
        "shortcut-failure degradation (points)": shortcut_failure_degradation(
            found.chosen > found.rejected, text.chosen > text.rejected, clusters
        ),
    }


def _more(name: str, scored: Scored | None, place: int) -> dict[str, float]:
    if scored is None:
        return {}
    return {f"chosen_{name}": scored.chosen[place], f"rejected_{name}": scored.rejected[place]}


def _print(out: Path, prepared: "Prepared", results: Results) -> None:
    told = f"{len(prepared.pairs):,} pairs, {prepared.steps:,} steps, {prepared.left_out:,} rows or pairs left out"
    print(f"Trained on {told}, {prepared.given.ties:,} ties left out.")
    width = max((len(entry.name) for entry in results.measured), default=0)
    for entry in results.measured:
        _, _, value, interval, count = entry.row()
        print(f"  {entry.name:<{width}}  {value:>6}  {interval:<17}  n = {count}")
    print(f"Model and card: {out / MODEL}")
