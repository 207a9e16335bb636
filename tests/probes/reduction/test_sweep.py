"""The sweep over pruning rates against what is read of each trace by hand."""

import warnings

import numpy as np
import pytest

from probes.frame_scores import frame_attention_accuracy
from probes.inputs import InputError
from probes.reduction.sampling import OnlyFirstFrameWarning
from probes.reduction.sweep import PlantedVideo, pruned_at, pruning_sweep
from tests.probes.hooked import hooked
from tests.probes.reduction.pruned import FAMILY, moving

BOX = (20.0, 10.0, 30.0, 20.0)
RATES = (0.0, 0.5, 0.9)
TEXT = "See <video> Which?"


def samples() -> list[PlantedVideo]:
    """One answer that the model gives at a rate of 0.5, whatever its case, and one that it does not."""
    with pruned_at(hooked(FAMILY), 0.5):
        said = hooked(FAMILY).generate([], TEXT, 2, videos=[moving()])
    return [
        PlantedVideo(moving(), TEXT, f" {said.upper()}\n", frame=5, box=BOX),
        PlantedVideo(moving(seed=1), TEXT, "what no model says", frame=0),
    ]


def test_points_are_what_each_trace_says() -> None:
    model, asked = hooked(FAMILY), samples()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        points = pruning_sweep(model, asked, RATES, max_new_tokens=2)
    assert model.model.video_pruning_rate == 0
    assert {each.category for each in heard} == {OnlyFirstFrameWarning}
    assert [point.rate for point in points] == list(RATES)
    assert [point.kept for point in points] == pytest.approx([1, 0.5, 16 / 48])
    assert [point.first_frame_only for point in points] == [0, 0, 1]
    assert points[1].answers.value == 0.5 and points[1].answers.n == 2
    assert [point.frames.lost.value for point in points] == [0, 0, 0.5]
    assert [point.frames.board.chance for point in points] == pytest.approx([1 / 3, 1 / 3, 0.5])
    assert points[2].cells.value == 0 == points[2].cell_chance
    with pruned_at(model, 0.5):
        traces = [model.trace([], TEXT, max_new_tokens=2, videos=[each.video]) for each in asked]
    right = [
        each.answer.casefold().split() == trace.answer.casefold().split()
        for each, trace in zip(asked, traces, strict=True)
    ]
    by_hand = frame_attention_accuracy([trace.frames() for trace in traces], [5, 0], right)
    assert points[1].frames == by_hand
    maps = np.mean([traces[0].scores(0, layer) for layer in traces[0].layers], axis=0)
    assert points[1].cells.n == 1
    assert bool(points[1].cells.value) == (int(np.nanargmax(maps)) == 2 * 16 + 4 * 1 + 2)
    assert points[1].cell_chance == pytest.approx(1 / 24), "the planted cell is among the 24 that are left"


def test_a_cell_is_hit_where_the_box_is_on_the_strongest_and_nowhere_else() -> None:
    model = hooked(FAMILY)
    with pruned_at(model, 0.5):
        trace = model.trace([], TEXT, max_new_tokens=2, videos=[moving()])
    maps = np.mean([trace.scores(0, layer) for layer in trace.layers], axis=0)
    strongest = trace.cells(0)[int(np.nanargmax(maps))]
    other = next(cell for cell in trace.cells(0) if cell.kept and cell.frame == strongest.frame and cell != strongest)
    elsewhere = (strongest.frame + strongest.frames) % 6
    planted = [
        (strongest.frame, strongest.box),
        (strongest.frame + 1, strongest.box),
        (strongest.frame, other.box),
        (elsewhere, strongest.box),
    ]
    hits = [
        pruning_sweep(model, [PlantedVideo(moving(), TEXT, "a", frame, box)], np.array([0.5]), max_new_tokens=2)
        for frame, box in planted
    ]
    assert [point.cells.value for (point,) in hits] == [1, 1, 0, 0]


def test_a_judge_of_ones_own_is_asked() -> None:
    points = pruning_sweep(hooked(FAMILY), samples()[1:], [0.5], max_new_tokens=2, is_right=lambda *_: True)
    assert points[0].answers.value == 1 and points[0].cells.n == 0 and np.isnan(points[0].cell_chance)


def test_what_cannot_be_swept_is_refused() -> None:
    model, asked = hooked(FAMILY), [PlantedVideo(moving(), TEXT, "a", frame=0)]
    with pytest.raises(InputError, match=r"prunes no videos.*efficient_video_sampling"):
        pruning_sweep(hooked("llava"), asked, [0.5])
    with pytest.raises(InputError, match="0 videos at 1 rate"):
        pruning_sweep(model, [], [0.5])
    for rows, reason in (("anchor", "compares the last image with others"), ("none", "unknown")):
        with pytest.raises(
            InputError, match=f"rows '{rows}' cannot be swept .{reason}.*paper, predicting, answer, after"
        ):
            pruning_sweep(model, asked, [0.5], rows=rows)
    with pytest.raises(InputError, match="from 0 to 1"):
        pruning_sweep(model, asked, [0.5, -1])
    for box in ((40.0, 0.0, 50.0, 10.0), (30.0, 20.0, 20.0, 10.0)):
        with pytest.raises(InputError, match=r"video 0: the box .* no pixel of its frames of 40 x 40"):
            pruning_sweep(model, [PlantedVideo(moving(), TEXT, "a", frame=0, box=box)], [0.5])
    with pytest.raises(InputError, match=r"frame 9 of a video holds the answer.*another frame"):
        pruning_sweep(model, [PlantedVideo(moving(), TEXT, "a", frame=9)], [0.5])
