"""Train reward models, and ask them whether they look at the image.

Names load on first use (PEP 562), so that the records and the numbers of this package load no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardmodels.adversary import find_flips as find_flips
    from rewardmodels.answer_pools import score_pools as score_pools
    from rewardmodels.degradation import shortcut_failure_degradation as shortcut_failure_degradation
    from rewardmodels.endpoints import Endpoint as Endpoint
    from rewardmodels.image_swaps import swap_images as swap_images
    from rewardmodels.judges import PairwiseJudge as PairwiseJudge
    from rewardmodels.judges import PointwiseJudge as PointwiseJudge
    from rewardmodels.looking import scoring_attention as scoring_attention
    from rewardmodels.model import RewardModel as RewardModel
    from rewardmodels.preferences import Preferences as Preferences
    from rewardmodels.preferences import read_preferences as read_preferences
    from rewardmodels.preferences import write_preferences as write_preferences
    from rewardmodels.questioning import score_preferences as score_preferences
    from rewardmodels.records import Preference as Preference
    from rewardmodels.records import PreferencePair as PreferencePair
    from rewardmodels.records import Response as Response
    from rewardmodels.reports import reward_report as reward_report
    from rewardmodels.sampling import sample_answers as sample_answers
    from rewardmodels.score_files import read_scores as read_scores
    from rewardmodels.scorers import CallableScorer as CallableScorer
    from rewardmodels.scorers import Scorer as Scorer
    from rewardmodels.scores import Scores as Scores
    from rewardmodels.shortcut import shortcut_aware_loss as shortcut_aware_loss
    from rewardmodels.shortcut import shortcut_failure_coefficient as shortcut_failure_coefficient
    from rewardmodels.training import RewardTrainer as RewardTrainer

_HOME = {
    "CallableScorer": "scorers",
    "Endpoint": "endpoints",
    "PairwiseJudge": "judges",
    "PointwiseJudge": "judges",
    "Preference": "records",
    "PreferencePair": "records",
    "Preferences": "preferences",
    "Response": "records",
    "RewardModel": "model",
    "RewardTrainer": "training",
    "Scorer": "scorers",
    "Scores": "scores",
    "find_flips": "adversary",
    "read_preferences": "preferences",
    "read_scores": "score_files",
    "reward_report": "reports",
    "sample_answers": "sampling",
    "score_pools": "answer_pools",
    "score_preferences": "questioning",
    "scoring_attention": "looking",
    "shortcut_aware_loss": "shortcut",
    "shortcut_failure_coefficient": "shortcut",
    "shortcut_failure_degradation": "degradation",
    "swap_images": "image_swaps",
    "write_preferences": "preferences",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rewardmodels' has no attribute {name!r}")
    return getattr(import_module(f"rewardmodels.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
