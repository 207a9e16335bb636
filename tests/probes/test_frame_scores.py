"""Frame-level attention accuracy against a table made by hand, with frames that share tokens or lost them all."""

import numpy as np
import pytest

from probes.estimates import proportion
from probes.families.geometry import Box, Tile
from probes.frame_scores import frame_attention_accuracy
from probes.frames import FrameAttention, frame_attention, frame_cells
from probes.image_span import ImageSpan
from probes.inputs import InputError

TILES = tuple(Tile(1, 2, Box(0, 0, 16, 8), frame=first, frames=2) for first in (0, 2, 4))
SPAN = ImageSpan(0, 5, 11, ((5, 11),), TILES, (16, 8))


def looking_at(*sums: float, tokens: tuple[int, ...] = (2, 2, 2)) -> FrameAttention:
    """One layer's attention to three groups of two frames."""
    return FrameAttention((range(0, 2), range(2, 4), range(4, 6)), np.array(tokens), np.array([sums], dtype=np.float32))


def test_the_board_is_that_of_a_hand_made_table() -> None:
    videos = [
        looking_at(0.1, 0.5, 0.2),  # target 3 is in the second group: hit, right
        looking_at(0.4, 0.1, 0.2),  # target 5 is missed, right
        looking_at(0.1, 0.1, 0.6),  # target 4: hit, wrong
        looking_at(0.4, 0.3, 0.0, tokens=(2, 1, 0)),  # of the target 5 nothing is left: missed, right
    ]
    found = frame_attention_accuracy(videos, [3, 5, 4, 5], [True, True, False, True])
    assert found.board.attention_accuracy == proportion([True, False, False])
    assert found.board.ivm_rate.value == pytest.approx(2 / 3)
    assert found.board.attention_when_wrong == proportion([True])
    assert found.board.attention_overall == proportion([True, False, True, False])
    assert found.board.answer_accuracy == proportion([True, True, False, True])
    assert found.lost == proportion([False, False, False, True])
    assert found.board.chance == pytest.approx((3 / 3 + 0) / 4)
    assert found.board.chance_when_right == pytest.approx((2 / 3 + 0) / 3)
    assert found.board.chance_when_wrong == pytest.approx(1 / 3)
    all_right = frame_attention_accuracy(videos[:2], [3, 5], [True, True])
    assert all_right.board.attention_when_wrong.n == 0 and np.isnan(all_right.board.chance_when_wrong)


def test_means_and_not_sums_decide_between_frames_of_unlike_tokens() -> None:
    video = looking_at(0.4, 0.3, 0.0, tokens=(2, 1, 0))
    assert video.focus() == 1 and int(video.sums.argmax()) == 0
    assert np.isnan(video.factors[0, 2])


def test_dropped_tokens_count_for_nothing() -> None:
    columns = np.ones(12, dtype=bool)
    columns[[8, 9, 10]] = False
    thin = SPAN.thinned(columns)
    scores = thin.spread(np.array([0.1, 0.2, 0.4], dtype=np.float32))
    found = frame_attention(scores[None], thin)
    assert found.tokens.tolist() == [2, 1, 0]
    np.testing.assert_allclose(found.sums, [[0.3, 0.4, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(found.factors, [[0.15, 0.4, np.nan]], rtol=1e-6)
    cells = frame_cells(scores, thin, 3)
    assert cells.kept.tolist() == [True, False] and cells.boxes.tolist() == [[0, 0, 8, 8], [8, 0, 16, 8]]
    assert cells.scores[0] == np.float32(0.4) and np.isnan(cells.scores[1])
    with pytest.raises(InputError, match="no frame 6"):
        frame_cells(scores, thin, 6)


def test_what_cannot_be_scored_is_refused() -> None:
    single = FrameAttention((range(0, 2),), np.array([4]), np.array([[1.0]], dtype=np.float32))
    with pytest.raises(InputError, match="leaves nothing to choose: give more frames, or ask about it as an image"):
        frame_attention_accuracy([single], [0], [True])
    with pytest.raises(InputError, match="no frame 6"):
        frame_attention_accuracy([looking_at(1, 2, 3)], [6], [True])
    with pytest.raises(InputError, match="1 video and 2 target frames"):
        frame_attention_accuracy([looking_at(1, 2, 3)], [0, 1], [True, True])
    with pytest.raises(InputError, match="1 video and 2 answers"):
        frame_attention_accuracy([looking_at(1, 2, 3)], [0], [True, True])
    with pytest.raises(InputError, match=r"give \(layers, groups\)"):
        FrameAttention((range(0, 2), range(2, 4)), np.array([1, 1]), np.ones(2, dtype=np.float32)).focus()
