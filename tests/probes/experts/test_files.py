"""Saved routings: what comes back is what was saved, and broken or hostile files are refused by name."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.experts import files
from probes.experts.files import as_arrays, load_routing, save_routing
from probes.experts.saved import SavedRouting, joined_saved, require_same_routers, require_same_tokens, token_ids
from probes.inputs import InputError
from tests.probes.experts.test_load import choices
from tests.probes.hooked import questions
from tests.probes.hybrid_models import hooked


def saved(tokens: int = 12, experts: int = 7, k: int = 3, seed: int = 0, step: int | None = 40) -> SavedRouting:
    """Random choices in layers 1 and 3, of three questions."""
    rng = np.random.default_rng(seed)
    samples = np.sort(np.concatenate([np.arange(3), rng.integers(0, 3, tokens - 3)]))
    return SavedRouting(
        layers=(1, 3),
        indices=choices(tokens, experts, k, seed, layers=2),
        experts=experts,
        samples=samples,
        images=rng.integers(-1, 2, tokens),
        ids=rng.integers(0, 40_000, tokens),
        names=("a", "b", "ß/3"),
        step=step,
    )


def same(left: SavedRouting, right: SavedRouting) -> bool:
    arrays = all(np.array_equal(value, as_arrays(right)[name]) for name, value in as_arrays(left).items())
    return arrays and (left.layers, left.names, left.step) == (right.layers, right.names, right.step)


@given(st.integers(3, 40), st.integers(3, 300), st.integers(0, 99), st.sampled_from([None, 0, 12_000]))
def test_what_comes_back_is_what_was_saved(
    tmp_path_factory: Any, tokens: int, experts: int, seed: int, step: int | None
) -> None:
    path = tmp_path_factory.mktemp("saved") / "routing.npz"
    before = saved(tokens, experts, 3, seed, step)
    assert save_routing(path, before) == path
    after = load_routing(path)
    assert same(before, after) and after.indices.dtype == np.int64 and after.k == 3
    assert not same(before, replace(after, indices=(after.indices + 1) % experts))


def test_a_models_routing_is_kept_with_its_tokens(tmp_path: Path) -> None:
    model = hooked("dots1")
    encoded = model.encode(questions()[:2], ["red", "blue"])
    routing = model.routing(encoded)
    kept = load_routing(
        save_routing(tmp_path / "a.npz", SavedRouting.of(routing, token_ids(encoded), ["q0", "q1"], step=3))
    )
    assert np.array_equal(kept.indices, np.sort(routing.indices, axis=-1))
    assert kept.layers == routing.layers and kept.step == 3
    assert np.array_equal(kept.images, routing.images) and (kept.images >= 0).any()
    for row in range(2):
        mask = encoded.inputs["attention_mask"][row].bool()
        assert kept.ids[kept.samples == row].tolist() == encoded.inputs["input_ids"][row][mask].tolist()
    assert (tmp_path / "a.npz").stat().st_size < kept.indices.nbytes / 2


def test_questions_are_taken_out_and_put_together() -> None:
    whole = saved(30)
    parts = [whole.of_questions([name]) for name in whole.names]
    assert same(joined_saved(parts), whole)
    turned = whole.of_questions(["ß/3", "a"])
    assert turned.names == ("ß/3", "a")
    assert np.array_equal(turned.indices[:, turned.samples == 0], whole.indices[:, whole.samples == 2])
    with pytest.raises(InputError, match="no question 'x'"):
        whole.of_questions(["a", "x"])
    with pytest.raises(InputError, match="names each of its questions once"):
        joined_saved([whole, whole])
    with pytest.raises(InputError, match="of one step"):
        joined_saved([parts[0], replace(parts[1], step=41)])


def test_checkpoints_that_cannot_be_compared_are_refused() -> None:
    first = saved()
    require_same_routers(first, first, "A", "B")
    require_same_tokens(first, first, "A", "B")
    for other, message in (
        (saved(experts=8), r"A and B are of different shapes \(experts: 7 and 8\).*one training run"),
        (saved(k=2), "experts a token: 3 and 2"),
        (replace(first, layers=(1, 2)), r"layers with experts: \[1, 3\] and \[1, 2\]"),
    ):
        with pytest.raises(InputError, match=message):
            require_same_routers(first, other, "A", "B")
    ids = first.ids.copy()
    ids[first.samples == 1] += 1
    with pytest.raises(InputError, match="A and B read question 'b' as different tokens"):
        require_same_tokens(first, replace(first, ids=ids), "A", "B")
    with pytest.raises(InputError, match="different questions"):
        require_same_tokens(first, replace(first, names=("b", "a", "ß/3")), "A", "B")


def archive(members: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, value in members.items():
            if not isinstance(value, bytes):
                inner = io.BytesIO()
                np.save(inner, value, allow_pickle=True)
                value = inner.getvalue()
            made.writestr(f"{name}.npy", value)
    return stream.getvalue()


def promising(shape: str) -> bytes:
    """An array of eight bytes whose header promises another shape."""
    inner = io.BytesIO()
    np.save(inner, np.zeros(1, dtype=np.int64))
    return inner.getvalue().replace(b"(1,), ", shape.encode().ljust(6)[:6])


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("hacked"),))


ARRAYS = as_arrays(saved())
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a zip file"),
    "no archive": (b"\x93NUMPY" + b"0" * 200, "not a zip file"),
    "cut": (archive(dict(ARRAYS))[:-40], "not a zip file"),
    "members missing": (archive({"form": np.array(1)}), "instead of"),
    "further members": (archive({**ARRAYS, "extra": np.zeros(3)}), "instead of"),
    "pickled": (archive({**ARRAYS, "names": np.array([Hostile()], dtype=object)}), "holds object"),
    "floats": (archive({**ARRAYS, "indices": ARRAYS["indices"] / 2}), "holds float64"),
    "promises": (archive({**ARRAYS, "ids": promising("(9**9,)")}), "saved routing"),
    "promises much": (archive({**ARRAYS, "ids": promising("(99,),")}), "not what follows"),
    "negative": (archive({**ARRAYS, "ids": promising("(-1,),")}), "saved routing"),
    "another form": (archive({**ARRAYS, "form": np.array(2)}), "of form 2"),
    "no expert": (archive({**ARRAYS, "experts": np.array(3)}), "none of the 3 experts"),
    "experts twice": (archive({**ARRAYS, "indices": np.zeros_like(ARRAYS["indices"])}), "twice"),
    "flat": (archive({**ARRAYS, "indices": ARRAYS["indices"][0]}), "indices are"),
    "many experts": (archive({**ARRAYS, "experts": np.array([7, 7])}), "experts is one number"),
    "few labels": (archive({**ARRAYS, "images": ARRAYS["images"][:-1]}), "as many samples, images and ids"),
    "layers": (archive({**ARRAYS, "layers": np.array([3, 1])}), "ascending"),
    "names": (archive({**ARRAYS, "names": np.array(["a", "a", "b"])}), "names each of its questions once"),
    "order": (archive({**ARRAYS, "samples": ARRAYS["samples"][::-1]}), "question by question"),
    "images": (archive({**ARRAYS, "images": ARRAYS["images"].astype(np.int64) - 5}), "-1 for text"),
    "no tokens": (
        archive({**ARRAYS, **{name: ARRAYS[name][..., :0, :] if name == "indices" else ARRAYS[name][:0]
                              for name in ("indices", "samples", "images", "ids")}}),
        "tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_hostile_files_are_refused_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = BROKEN[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "routing.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_routing(path)
    assert str(path) in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["routing.npz"]


def test_files_that_are_too_large_missing_or_misnamed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_routing(tmp_path / "routing.npz", saved())
    monkeypatch.setattr(files, "LARGEST_BYTES", 100)
    with pytest.raises(InputError, match="larger than"):
        load_routing(path)
    # Small numbers take one byte in a file and eight in memory.
    many = save_routing(tmp_path / "many.npz", saved(3000, 7, 3))
    monkeypatch.setattr(files, "LARGEST_BYTES", 10**5)
    with pytest.raises(InputError, match=r"indices\.npy of \(2, 3000, 3\) takes more than .* in memory"):
        load_routing(many)
    monkeypatch.setattr(files, "LARGEST_BYTES", 2 * 10**5)
    assert load_routing(many).indices.shape == (2, 3000, 3)
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        load_routing(tmp_path / "none.npz")
    with pytest.raises(InputError, match="no saved routing"):
        load_routing(tmp_path)
    with pytest.raises(InputError, match="name it so"):
        save_routing(tmp_path / "routing.txt", saved())


@given(st.binary(max_size=400), st.integers(0, 900))
def test_any_damage_is_refused_or_changes_nothing_that_is_used(tmp_path_factory: Any, noise: bytes, at: int) -> None:
    content = bytearray(archive(dict(ARRAYS)))
    content[at : at + len(noise)] = noise
    path = tmp_path_factory.mktemp("damaged") / "routing.npz"
    path.write_bytes(bytes(content))
    try:
        load_routing(path)
    except InputError as error:
        assert str(path) in str(error)
