import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sightcheck
from sightcheck import PACKAGES, ShadowedPackageError, check_packages
from studies import cli
from studies.cli import VERBS, main, parse
from studies.overwrite import remove_run
from studies.runs import Manifest, RunFolder
from tests.studies.small_audit import save_model, save_questions

ROOT = Path(__file__).parents[2]


def command(*words: str, path: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path[:0] = [p for p in {path!r}.split(':') if p] + [{str(ROOT)!r}]; "
    code += "from sightcheck import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_help_is_quick_and_names_every_verb() -> None:
    best = math.inf
    # The best of several starts: other work on the machine only ever adds.
    for _ in range(10):
        start = time.perf_counter()
        shown = command("--help")
        best = min(best, time.perf_counter() - start)
        assert shown.returncode == 0
        assert all(verb in shown.stdout for verb in VERBS)
        if best < 0.5:
            return
    pytest.fail(f"the quickest start took {best:.2f} s, and the bar is 0.5 s")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_an_example(verb: str, capsys: Any) -> None:
    assert main([*verb.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: sightcheck {verb}" in re.sub(r"\s+", " ", shown)
    assert any(option in shown for option in ("--out", "--runs", "--data", "--model"))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_examples_are_valid(verb: str) -> None:
    from importlib import import_module

    entry = VERBS[verb]
    words = entry.example.split()[1 + len(verb.split()) :]
    assert parse(getattr(import_module(entry.module), entry.config), words, "sightcheck", entry.example) is not None


LOADING = ("--device", "cpu", "--trust-remote-code", "--allow-pickle", "--model", "some/model")
READING = ("--data", "some/data", "--format", "blink", "--subset", "all", "--image-root", "images")


@pytest.mark.parametrize("verb", ["audit", "scoreboard", "routing", "doctor", "untrained", "app"])
def test_verbs_that_load_a_model_take_the_same_options_and_pass_them_on(verb: str) -> None:
    from importlib import import_module

    from probes.model import HookedModel
    from studies.multi_image import read_questions

    entry = VERBS[verb]
    reads = verb in ("audit", "scoreboard", "routing", "doctor")
    config = parse(
        getattr(import_module(entry.module), entry.config), [*LOADING, *(READING if reads else ())], "sightcheck", ""
    )
    assert config is not None and config.model == "some/model"
    assert config.loading() == {"device": "cpu", "trust_remote_code": True, "allow_pickle": True}
    assert set(config.loading()) <= set(signature(HookedModel.from_pretrained).parameters)
    if reads:
        assert config.reading() == {"format": "blink", "subset": "all", "image_root": Path("images")}
        assert set(config.reading()) <= set(signature(read_questions).parameters)


def test_version(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"sightcheck \S+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audti"], "no verb 'audti'"),
        (["bench", "x"], "no verb 'bench x'"),
        (["audit", "--nope"], "--nope"),
        (["audit", "--maps", "some"], "--maps"),
        (["audit", "--limit", "many"], "--limit"),
        (["audit", "--limit", "0"], "--limit must be at least 1"),
        (["audit", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["audit", "--answers", "/nowhere.json"], "/nowhere.json"),
        (["audit", "--resume", "--overwrite"], "leave one out"),
        (["untrained", "--seeds", "3"], "at least 20"),
    ],
)
def test_bad_arguments_are_one_line_on_stderr(words: list[str], said: str, capsys: Any) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and said in shown.err and shown.err.startswith("sightcheck: ")


def test_no_verb_shows_usage_on_stderr(capsys: Any) -> None:
    assert main([]) == 2
    assert "usage: sightcheck" in capsys.readouterr().err


@pytest.mark.parametrize("name", PACKAGES)
def test_refuses_to_start_when_a_package_is_shadowed(name: str, tmp_path: Path) -> None:
    def finder(asked: str) -> SimpleNamespace:
        home = tmp_path if asked == name else ROOT
        return SimpleNamespace(origin=str(home / asked / "__init__.py"), submodule_search_locations=[])

    with pytest.raises(ShadowedPackageError, match=rf"'{name}' is shadowed by .*{tmp_path.name}"):
        check_packages(finder)
    check_packages(lambda asked: SimpleNamespace(origin=str(ROOT / asked / "__init__.py")))


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_shadow_on_the_path_is_named(name: str, kind: str, tmp_path: Path) -> None:
    intruder = tmp_path / name / "__init__.py" if kind == "package" else tmp_path / f"{name}.py"
    intruder.parent.mkdir(exist_ok=True)
    intruder.write_text("")
    shown = command("--help", path=str(tmp_path))
    assert shown.returncode == 2
    assert f"'{name}' is shadowed by" in shown.stderr and str(intruder) in shown.stderr
    assert shown.stderr.count("\n") == 1 and not shown.stdout


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ShadowedPackageError, match="'probes' of sightcheck is missing"):
        check_packages(lambda _: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_questions(tmp_path_factory.mktemp("data") / "data", count=4, dev=2)


def audit(capsys: Any, out: Path, model: Path | str, data: Path | str, *words: str) -> tuple[int, str]:
    named = ["--model", str(model), "--data", str(data), "--out", str(out)]
    status = main(["audit", *named, "--max-new-tokens", "2", *words])
    return status, capsys.readouterr().err


def test_bad_input_is_one_line_and_nothing_is_written(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "notes.txt").write_text("no questions")
    cases: list[tuple[Path | str, Path | str, tuple[str, ...], str]] = [
        (tmp_path / "nowhere", data, (), "nowhere"),
        (model, tmp_path / "nowhere.jsonl", (), "nowhere.jsonl"),
        (model, tmp_path / "empty.jsonl", (), "no row"),
        (model, tmp_path / "notes.txt", (), "notes.txt"),
        (tmp_path, data, (), "config.json"),
        (model, data, ("--split", "train"), "train"),
        (model, data, ("--device", "warp:9"), "warp"),
    ]
    for given_model, given_data, words, said in cases:
        status, shown = audit(capsys, out, given_model, given_data, *words)
        assert status == 2, said
        assert said in shown and shown.strip().count("\n") == 0, shown
        assert "Traceback" not in shown
        assert not out.exists(), said


def test_an_audit_says_what_it_reads_and_takes_an_image_root(
    model: Path, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.auditing.figures.draw_figures", lambda *_: [])
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "questions.jsonl").write_text((data / "questions.jsonl").read_text())
    words = ("--split", "test", "--image-root", str(data))
    status, shown = audit(capsys, tmp_path / "run", model, tmp_path / "rows", *words)
    assert status == 0
    assert "2 questions, 0 unusable; 1 .jsonl files; format sightcheck: " in shown
    assert "split test, 2 rows of other splits left out" in shown
    config = RunFolder.open(tmp_path / "run").manifest.config
    assert config["image_root"] == data.as_posix() and config["subset"] is None
    status, shown = audit(capsys, tmp_path / "run", model, data, "--split", "test", "--resume")
    assert status == 2 and "image_root" in shown.splitlines()[-1]


def test_broken_weights_are_refused_before_anything_is_written(
    model: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(key for key in weights if "norm" in key and "language_model" in key)
    weights[name] = weights[name] * float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    status, shown = audit(capsys, tmp_path / "run", broken, data)
    assert status == 2 and "NaN" in shown and shown.strip().count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_overwrite_leaves_alone_what_is_no_run(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("all of it")
    for words in ((), ("--overwrite",), ("--resume",)):
        status, shown = audit(capsys, tmp_path / "run", model, data, *words)
        assert status == 2 and "run" in shown
    assert (tmp_path / "run" / "thesis.tex").read_text() == "all of it"
    (tmp_path / "file").write_text("")
    status, shown = audit(capsys, tmp_path / "file", model, data)
    assert status == 2 and "is a file" in shown


def app_manifest(folder: Path) -> None:
    """A folder of a web app, which has a manifest.json of its own."""
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "An app", "icons": [], "start_url": "/"}')


def other_study(folder: Path) -> None:
    with RunFolder.create(folder, Manifest(config={"study": "routing"}, batches=1)):
        pass


def edited_run(folder: Path) -> None:
    with RunFolder.create(folder, Manifest(config={"study": "audit"}, batches=1)):
        pass
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"batches": 1', '"batches": 0'))


def linked_run(folder: Path) -> None:
    with RunFolder.create(folder.with_name("elsewhere"), Manifest(config={"study": "audit"}, batches=1)):
        pass
    folder.symlink_to(folder.with_name("elsewhere"))


@pytest.mark.parametrize("make", [app_manifest, other_study, edited_run, linked_run])
def test_overwrite_leaves_alone_what_is_no_audit(
    make: Callable[[Path], None], model: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "run"
    make(out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    status, shown = audit(capsys, out, model, data, "--overwrite")
    assert status == 2 and shown.count("\n") == 1 and str(out) in shown and "alone" in shown
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_overwrite_refuses_a_run_that_is_being_written(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    with RunFolder.create(out, Manifest(config={"study": "audit"}, batches=3)) as folder:
        status, shown = audit(capsys, out, model, data, "--overwrite")
        assert status == 2 and shown.splitlines()[-1].startswith("sightcheck: ") and "is being written by" in shown
        assert "Traceback" not in shown
        assert RunFolder.open(out).manifest == folder.manifest
    remove_run(out, "audit")
    assert list(tmp_path.iterdir()) == []


def test_overwrite_of_an_empty_or_absent_folder_changes_nothing(tmp_path: Path) -> None:
    remove_run(tmp_path / "absent", "audit")
    (tmp_path / "empty").mkdir()
    remove_run(tmp_path / "empty", "audit")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_position_study_cannot_take_given_answers(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "answers.json").write_text("{}")
    words = ("--position-study", "--answers", str(tmp_path / "answers.json"))
    status, shown = audit(capsys, tmp_path / "run", model, data, *words)
    assert status == 2 and "--position-study" in shown


def test_errors_of_our_own_show_their_traceback_and_a_status_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(cli, "usage", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["--help"])
    assert sightcheck.main(["--help"]) == 70
    shown = capsys.readouterr()
    assert shown.err.startswith("Traceback") and shown.err.endswith("ZeroDivisionError: division by zero\n")


def test_interrupts_have_a_status_of_their_own(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "usage", interrupted)
    assert main(["--help"]) == 130
    assert capsys.readouterr().err == "sightcheck: interrupted\n"


def test_the_readme_names_every_exit_status_and_verb() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    statuses = text[text.index("Exit status:") : text.index("`DATA` is")]
    named = {int(number) for number in re.findall(r"\b\d+\b", statuses)}
    assert named == {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert all(f"sightcheck {verb} " in text for verb in VERBS)


def test_first_paragraph_of_a_box() -> None:
    box = "╭─ Value error ─╮\n│ Error parsing │\n│ --limit. │\n│ │\n│ Got errors │\n╰───╯\n"
    assert cli._first_paragraph(box) == "Error parsing --limit"
    assert cli._first_paragraph("") == "bad arguments"
