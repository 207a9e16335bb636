"""The arrows between packages, what importing loads, and what the wheel ships."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("probes", "rewardmodels", "viz", "studies")
MAY_IMPORT = {
    "viz": {"viz"},
    "probes": {"probes"},
    "rewardmodels": {"rewardmodels", "probes"},
    "studies": {"studies", "probes", "rewardmodels", "viz"},
}
HEAVY = ("torch", "transformers", "datasets", "gradio", "matplotlib.pyplot", "plotly")
WITHOUT_TORCH = (
    "viz",
    "viz.papers",
    "viz.rewards",
    "viz.screens",
    "probes",
    "probes.clips",
    "probes.frames",
    "probes.inputs",
    "probes.layer_kinds",
    "probes.estimates",
    "probes.experts",
    "probes.experts.evenness",
    "probes.experts.files",
    "probes.experts.load",
    "probes.experts.margins",
    "probes.experts.records",
    "probes.experts.rules",
    "probes.experts.saved",
    "probes.experts.specialisation",
    "probes.experts.stability",
    "probes.paired",
    "probes.instruments.arrays",
    "probes.instruments.attention_scores",
    "probes.instruments.contributions",
    "probes.instruments.heads",
    "probes.instruments.linear_probes",
    "probes.instruments.names",
    "probes.mixers",
    "probes.mixers.trace",
    "probes.frame_scores",
    "probes.reduction",
    "probes.reduction.sampling",
    "probes.reduction.tile_scores",
    "probes.reduction.tiles",
    "probes.scores",
    "probes.bridges",
    "probes.bridges.support",
    "rewardmodels",
    "rewardmodels.adversary",
    "rewardmodels.answer_pools",
    "rewardmodels.answers",
    "rewardmodels.benchmark_scores",
    "rewardmodels.benchmarks",
    "rewardmodels.best_of_n",
    "rewardmodels.calibration",
    "rewardmodels.degradation",
    "rewardmodels.edits",
    "rewardmodels.endpoints",
    "rewardmodels.evaluation",
    "rewardmodels.group_means",
    "rewardmodels.image_swaps",
    "rewardmodels.judged_pairs",
    "rewardmodels.judges",
    "rewardmodels.lengths",
    "rewardmodels.pair_report",
    "rewardmodels.pair_scores",
    "rewardmodels.perturbations",
    "rewardmodels.planted",
    "rewardmodels.preferences",
    "rewardmodels.published",
    "rewardmodels.questioning",
    "rewardmodels.records",
    "rewardmodels.reports",
    "rewardmodels.reward_bench_2",
    "rewardmodels.rulers",
    "rewardmodels.score_files",
    "rewardmodels.scorers",
    "rewardmodels.scores",
    "rewardmodels.shards",
    "rewardmodels.style_scores",
    "rewardmodels.styles",
    "rewardmodels.text_cues",
    "rewardmodels.transfer",
    "rewardmodels.transfer_scores",
    "rewardmodels.views",
    "studies",
    "studies.cli",
    "studies.runs",
    "studies.multi_image",
    "studies.audit",
    "studies.best_of_n",
    "studies.auditing.plan",
    "studies.auditing.run",
    "studies.auditing.causal",
    "studies.auditing.evidence",
    "studies.auditing.finalise",
    "studies.auditing.causal_metrics",
    "studies.auditing.choices",
    "studies.auditing.entries",
    "studies.auditing.metrics",
    "studies.auditing.position_metrics",
    "studies.position",
    "studies.auditing.report",
    "studies.untrained",
    "studies.scaling",
    "studies.compare",
    "studies.doctor.command",
    "studies.doctor.memory",
    "studies.reward.asking",
    "studies.fixed_study",
    "studies.inside_bench.cli",
    "studies.inside_bench.bench",
    "studies.language.command",
    "studies.language.items",
    "studies.language.settings",
    "studies.language.summary",
    "studies.reward.bundled_pairs",
    "studies.reward.card",
    "studies.reward.convert",
    "studies.reward.entries",
    "studies.reward.eval_figures",
    "studies.reward.evaluate",
    "studies.reward.evaluating",
    "studies.reward.looking",
    "studies.reward.score",
    "studies.reward.score_folder",
    "studies.reward.style_scores",
    "studies.reward.published",
    "studies.reward.published_files",
    "studies.reward.train",
    "studies.reward.transfer",
    "studies.reward_bench.bench",
    "studies.routing.command",
    "studies.routing.concluding",
    "studies.routing.figures",
    "studies.routing.measures",
    "studies.routing.measuring",
    "studies.routing.preparing",
    "studies.scoreboard",
    "studies.shortcuts.command",
    "studies.shortcuts.environments",
    "studies.shortcuts.frontier",
    "studies.shortcuts.grid",
    "studies.shortcuts.pictures",
    "studies.shortcuts.report",
    "studies.shortcuts.settings",
    "studies.shortcuts.summary",
    "studies.instruments.beside",
    "studies.instruments.evidence",
    "studies.instruments.figures",
    "studies.instruments.measuring",
    "studies.instruments.ranking",
    "studies.instruments.report",
)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import statement, relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*base, *([node.module] if node.module else [])])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            yield from (str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant))


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows(package: str) -> None:
    assert sources(package)
    for path in sources(package):
        ours = {name.split(".")[0] for name in imports(path)} & {*PACKAGES, "tests", "app"}
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {sorted(ours - MAY_IMPORT[package])}"


def test_rewardmodels_use_the_public_names_of_probes_only() -> None:
    for path in sources("rewardmodels"):
        for name in imports(path):
            assert not any(part.startswith("_") for part in name.split(".")), path


def test_viz_knows_no_torch() -> None:
    for path in sources("viz"):
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers"}, path


BRIDGED = {"transformer_lens": "probes/bridges/transformer_lens.py", "nnsight": "probes/bridges/nnsight.py"}
"""Libraries that broke their dependants before, and the one file that knows each."""
PEERS = "studies/capture/peers.py"
"""Measures both as their users call them: nothing is built on it."""


def test_each_bridged_library_is_known_to_one_file() -> None:
    for package in PACKAGES:
        for path in sources(package):
            file = path.relative_to(ROOT).as_posix()
            for library in {name.split(".")[0] for name in imports(path)} & set(BRIDGED):
                assert file in (BRIDGED[library], PEERS), f"{file} imports {library}"
    for library, file in BRIDGED.items():
        assert library in {name.split(".")[0] for name in imports(ROOT / file)}


def test_the_check_of_bridges_sees_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "a.py").write_text("def f():\n    from nnsight import save")
    with pytest.raises(AssertionError, match=r"studies/a.py imports nnsight"):
        test_each_bridged_library_is_known_to_one_file()


def test_models_load_no_bridged_library() -> None:
    code = "import sys\nfrom probes import HookedModel\nimport probes.bridges, probes.patching, probes.interventions\n"
    loaded_by(code + f"assert not {set(BRIDGED)!r} & set(sys.modules)")


def test_app_starts_the_explorer_and_nothing_else() -> None:
    assert set(imports(ROOT / "app.py")) == {"sys", "probes.inputs", "studies.explorer.app"}


def test_the_check_of_arrows_sees_an_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "viz").mkdir()
    for line in ("import studies.runs", "from probes import focus", "def f():\n    from studies import cli"):
        (tmp_path / "viz" / "a.py").write_text(line)
        with pytest.raises(AssertionError, match="imports"):
            test_arrows("viz")
    (tmp_path / "viz" / "a.py").write_text("from . import b")
    test_arrows("viz")


def loaded_by(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after running some code."""
    script = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}\n"
    script += f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


def test_imports_load_no_torch() -> None:
    checks = "\n".join(
        f"import {name}\nassert not {{'torch', 'transformers', 'gradio', 'datasets'}} & set(sys.modules), {name!r}"
        for name in WITHOUT_TORCH
    )
    assert not loaded_by(checks) & {"torch", "transformers", "gradio", "datasets"}


def test_scores_of_probes_load_no_torch() -> None:
    code = "import probes\nprobes.focus, probes.attention_accuracy, probes.Estimate, probes.ImageRef, probes.Turn, "
    code += "probes.Routing, probes.LayerKind"
    assert not loaded_by(code) & {"torch", "transformers"}


@pytest.mark.parametrize(
    "line", ["--help", "--version", "audit --help", "app --help", "compare --help", "doctor --help"]
)
def test_help_loads_nothing_heavy(line: str) -> None:
    words = line.split()
    assert loaded_by(f"from studies.cli import main\nassert main({words!r}) == 0") == set()


def test_the_check_of_imports_sees_torch() -> None:
    assert "torch" in loaded_by("import torch")


def test_public_names_are_there() -> None:
    import probes

    names = {"HookedModel", "attention_factors", "attention_layers", "attention_accuracy", "focus", "find_image_spans"}
    names |= {"pairwise_factors", "ImageSpan", "ImageRef", "Estimate", "record_routing", "Routing", "LayerKind"}
    names |= {"hidden_attention", "hidden_attention_factors", "mixer_layers", "trace_mixers"}
    assert names <= set(dir(probes))
    assert all(getattr(probes, name) is not None for name in names)


def test_public_names_of_reward_models_are_there() -> None:
    import rewardmodels

    names = {"read_preferences", "write_preferences", "Preference", "PreferencePair", "Preferences", "Response"}
    names |= {"shortcut_failure_coefficient", "shortcut_aware_loss", "shortcut_failure_degradation"}
    names |= {"RewardModel", "RewardTrainer", "Scorer", "Scores", "CallableScorer"}
    names |= {"Endpoint", "PointwiseJudge", "PairwiseJudge", "read_scores", "score_preferences", "reward_report"}
    names |= {"scoring_attention", "find_flips", "swap_images", "sample_answers", "score_pools"}
    assert names <= set(dir(rewardmodels))
    assert all(getattr(rewardmodels, name) is not None for name in names)
    modules = {path.stem for path in sources("rewardmodels")}
    assert not modules & set(dir(rewardmodels)), "a module of that name would take its place once imported"


def test_wheel_ships_every_package_and_no_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = settings["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(there)
    assert not [name for name in listed if name.split(".")[0] not in PACKAGES]
    data = settings["package-data"]
    assert all("py.typed" in data[package] and (ROOT / package / "py.typed").is_file() for package in PACKAGES)
    assert any(pattern.startswith("templates/") for pattern in data["studies.auditing"])


def test_no_module_lies_outside_a_package() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert (path.parent / "__init__.py").is_file(), path


def test_command_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"sightcheck": "sightcheck:main"}
