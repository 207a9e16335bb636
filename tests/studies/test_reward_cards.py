"""The verbs `reward convert` and `reward card`, and a model that reads text only asked to see."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rewardmodels.model import RewardModel
from studies.cli import command, main
from tests.rewardmodels.small import save_base, three_prompts
from tests.rewardmodels.test_model import RESPONSES, text_only
from tests.studies.small_reward import save_pairs, save_reward, summary_of

FEW = ["--limit", "6", "--device", "cpu"]


def head_of(folder: Path, bias: float = 0.5) -> dict[str, Tensor]:
    """A value head beside a backbone; returns it."""
    config = json.loads((folder / "config.json").read_text())
    width = int(config.get("text_config", config)["hidden_size"])
    weight = torch.randn(1, width, generator=torch.Generator().manual_seed(5))
    head = {"v_head.summary.weight": weight, "v_head.summary.bias": torch.tensor([bias])}
    save_file(head, folder / "value_head.safetensors", metadata={"format": "pt"})
    return head


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    save_base("llava", folder / "old")
    head_of(folder / "old")
    save_pairs(folder / "pairs.jsonl", 6)
    save_reward(folder / "model")
    return folder


def test_a_value_head_becomes_a_reward_model_with_its_card(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    assert main(["reward", "convert", "--model", str(home / "old"), "--out", str(out), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "v_head.summary in value_head.safetensors" in told and "plus 0.5" in told
    reward = RewardModel.from_pretrained(out, device="cpu")
    head = torch.randn(1, reward.model.score.weight.shape[1], generator=torch.Generator().manual_seed(5))
    assert torch.equal(reward.model.score.weight.detach(), head)
    assert len(reward.get_scores(three_prompts(), RESPONSES)) == 3
    assert "converted from v_head.summary" in (out / "README.md").read_text().replace("\\", "")
    assert not [path for path in tmp_path.iterdir() if path != out]


def test_nothing_is_written_where_it_cannot_be_converted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    asked = ["reward", "convert", "--device", "cpu", "--out"]
    assert command([*asked, str(tmp_path / "full"), "--model", str(home / "old")]) == 2
    assert "not empty" in last_line(capsys)
    assert command([*asked, str(tmp_path / "new"), "--model", str(home / "model")]) == 2
    assert "already" in last_line(capsys)
    assert command([*asked, str(tmp_path / "new")]) == 2
    assert command([*asked, str(tmp_path / "new"), "--model", "nowhere/at/all"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_card_takes_the_numbers_of_its_own_evaluation_only(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("draw_report", "draw_shortcut"):
        monkeypatch.setattr(f"studies.reward.eval_figures.{name}", lambda *_: None)
    evaluate = ["reward", "eval", "--model", str(home / "model"), "--data", str(home / "pairs.jsonl"), *FEW]
    assert main([*evaluate, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    card = ["reward", "card", "--model", str(home / "model"), "--device", "cpu"]
    assert main(card) == 0
    assert "None ran." in capsys.readouterr().out and not (home / "model" / "README.md").exists()
    assert main([*card, "--eval", str(tmp_path / "run"), "--write"]) == 0
    text = (home / "model" / "README.md").read_text()
    accuracy = summary_of(tmp_path / "run")["pair accuracy"]
    assert f"| pair accuracy | {home / 'pairs.jsonl'} | {accuracy['value']:.3f} |" in text
    assert "accuracy drop with blank images" in text and "longer ruler" in text
    # Writing the card makes the checkpoint no other one: its evaluation can be gone on with, and added again.
    assert main([*evaluate, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert main([*card, "--eval", str(tmp_path / "run"), "--write"]) == 0
    assert (home / "model" / "README.md").read_text() == text
    other = save_reward(tmp_path / "other")
    weights = RewardModel.from_pretrained(other, device="cpu")
    with torch.no_grad():
        weights.model.score.weight.neg_()
    weights.save_pretrained(other)
    assert command(["reward", "card", "--model", str(other), "--eval", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "not of this checkpoint" in last_line(capsys)


def test_a_card_that_is_not_ours_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_reward(tmp_path / "model")
    (folder / "README.md").write_text("mine")
    card = ["reward", "card", "--model", str(folder), "--write", "--device", "cpu"]
    assert command(card) == 2
    assert "--overwrite" in last_line(capsys) and (folder / "README.md").read_text() == "mine"
    assert main([*card, "--overwrite"]) == 0
    assert "What a score means" in (folder / "README.md").read_text()


def test_a_model_of_text_is_asked_about_texts_only(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.reward.eval_figures.draw_report", lambda *_: None)
    text_only(tmp_path / "base")
    RewardModel.from_base(tmp_path / "base", device="cpu").save_pretrained(tmp_path / "model")
    given = ["reward", "eval", "--model", str(tmp_path / "model"), "--data", str(home / "pairs.jsonl"), *FEW]
    given += ["--out", str(tmp_path / "out")]
    assert command(given) == 2
    error = last_line(capsys)
    assert "reads text only" in error and "--text-alone" in error
    assert main([*given, "--text-alone"]) == 0
    assert "No record has an image" in capsys.readouterr().out
