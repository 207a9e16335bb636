"""The verb `reward train`: what it leaves, what it says, how it goes on after a stop, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from rewardmodels.model import RewardModel
from rewardmodels.preferences import write_preferences
from studies.cli import command, main
from studies.reward.bundled_pairs import bundled_pairs

ROOT = Path(__file__).parents[2]
FEW = ["--limit", "48", "--batch-size", "8", "--steps", "6", "--save-every", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight of the bundled pairs as a file, and as many held out."""
    folder = tmp_path_factory.mktemp("pairs")
    write_preferences(folder / "train.jsonl", bundled_pairs("train")[:48])
    write_preferences(folder / "test.jsonl", bundled_pairs("test")[:48])
    return folder


def words(data: Path, out: Path, *more: str) -> list[str]:
    named = ["--data", str(data / "train.jsonl"), "--eval-data", str(data / "test.jsonl"), "--out", str(out)]
    return ["reward", "train", *named, *FEW, *more]


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(words(data, out)) == 0
    return out


def test_it_leaves_a_model_that_loads_and_a_record_of_what_ran(trained: Path) -> None:
    model = RewardModel.from_pretrained(trained / "model")
    pair = bundled_pairs("test")[0].pairs()[0]
    assert isinstance(model.get_scores([pair.prompt], [pair.chosen])[0], float)
    assert model.meta.mean is not None and model.meta.data
    record = json.loads((trained / "train.json").read_text())
    assert str(48) in json.dumps(record)
    held_out = [json.loads(line) for line in (trained / "held_out.jsonl").read_text().splitlines()]
    assert len(held_out) == 48
    assert len({row["id"] for row in held_out}) == 48


def test_its_card_is_valid_and_says_what_ran(trained: Path) -> None:
    text = (trained / "model" / "README.md").read_text()
    head: dict[str, Any] = vars(ModelCard(text).data)
    assert head["pipeline_tag"] == "text-classification" and {"reward-trainer", "trl"} <= set(head["tags"])
    assert "accuracy with blank images" in text and "longer ruler" in text
    assert str(ROOT) not in text.split("## Load it")[1]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_losses(data: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    code = (
        "import sys\nfrom rewardmodels.training import RewardTrainer\nstep = RewardTrainer.training_step\n"
        "def stop(self, *args, **kwargs):\n"
        "    if self.state.global_step == 4:\n        raise KeyboardInterrupt\n"
        "    return step(self, *args, **kwargs)\n"
        "RewardTrainer.training_step = stop\nfrom studies.cli import command\nsys.exit(command(sys.argv[1:]))"
    )
    stopped = subprocess.run(
        [sys.executable, "-c", code, *words(data, out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert stopped.returncode == 130, stopped.stderr[-2000:]
    assert "--resume" in stopped.stderr
    assert main([*words(data, out), "--resume"]) == 0
    assert losses(out) == pytest.approx(losses(trained), rel=1e-4)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--objective", "shortcut-aware"], "text-only proxy"),
        (["--model", "nowhere/at/all"], "no such folder"),
        (["--proxy", "lora"], "lora"),
        (["--steps", "0"], "--steps"),
        (["--exponent", "0.5"], "exponent"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    assert command(words(data, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("sightcheck:") and why in error
    assert not (tmp_path / "out" / "model").exists()


def test_a_broken_image_is_refused_or_left_out_and_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    (tmp_path / "broken.png").write_bytes(b"no image")
    turn = rows[0]["prompt"][0]
    turn["images"][0] = str(tmp_path / "broken.png")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = words(data, tmp_path / "out")
    given[given.index("--data") + 1] = str(tmp_path / "train.jsonl")
    assert command(given) == 2
    assert "broken.png" in capsys.readouterr().err
    assert command([*given, "--on-bad", "skip"]) in (0, 1)
    assert "47" in (tmp_path / "out" / "train.json").read_text()


def test_data_whose_images_are_all_gone_say_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "a", "prompt": "Say it", "images": ["gone.png"], "responses": ["x", "y"], "ranks": [0, 1]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    given = words(data, tmp_path / "out")
    given[given.index("--data") + 1] = str(tmp_path / "train.jsonl")
    assert command(given) == 2
    error = capsys.readouterr().err
    assert "1 row cannot be read, the first is a:" in error and "gone.png" in error


def test_a_finished_run_is_not_written_over(data: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "train.json").read_bytes()
    assert command(words(data, trained)) == 2
    assert (trained / "train.json").read_bytes() == before
    assert "--overwrite" in capsys.readouterr().err


def test_bundled_pairs_are_one_truth_and_two_answers() -> None:
    train, test = bundled_pairs("train"), bundled_pairs("test")
    assert bundled_pairs("train")[0] == train[0]
    shown = {image.path for record in train for image in record.images}
    assert not shown & {image.path for record in test for image in record.images}
    lengths = [len(pair.chosen.text) - len(pair.rejected.text) for record in test for pair in record.pairs()]
    assert abs(sum(lengths) / len(lengths)) < 1, "the longer answer would be a shortcut"
