"""Train reward models, and ask them whether they look at the image.

Names load on first use (PEP 562), so that the records and the numbers of this package load no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardmodels.degradation import shortcut_failure_degradation as shortcut_failure_degradation
    from rewardmodels.model import RewardModel as RewardModel
    from rewardmodels.preferences import Preferences as Preferences
    from rewardmodels.preferences import read_preferences as read_preferences
    from rewardmodels.preferences import write_preferences as write_preferences
    from rewardmodels.records import Preference as Preference
    from rewardmodels.records import PreferencePair as PreferencePair
    from rewardmodels.records import Response as Response
    from rewardmodels.shortcut import shortcut_aware_loss as shortcut_aware_loss
    from rewardmodels.shortcut import shortcut_failure_coefficient as shortcut_failure_coefficient
    from rewardmodels.training import RewardTrainer as RewardTrainer

_HOME = {
    "Preference": "records",
    "PreferencePair": "records",
    "Preferences": "preferences",
    "Response": "records",
    "RewardModel": "model",
    "RewardTrainer": "training",
    "read_preferences": "preferences",
    "shortcut_aware_loss": "shortcut",
    "shortcut_failure_coefficient": "shortcut",
    "shortcut_failure_degradation": "degradation",
    "write_preferences": "preferences",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rewardmodels' has no attribute {name!r}")
    return getattr(import_module(f"rewardmodels.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
