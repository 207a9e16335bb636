"""Train and question reward models.

Names load on first use (PEP 562), so that reading preferences loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardmodels.preferences import Preference as Preference
    from rewardmodels.preferences import PreferencePair as PreferencePair
    from rewardmodels.preferences import Preferences as Preferences
    from rewardmodels.preferences import Response as Response
    from rewardmodels.preferences import read_preferences as read_preferences
    from rewardmodels.preferences import write_preferences as write_preferences

_HOME = {
    "Preference": "preferences",
    "PreferencePair": "preferences",
    "Preferences": "preferences",
    "Response": "preferences",
    "read_preferences": "preferences",
    "write_preferences": "preferences",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rewardmodels' has no attribute {name!r}")
    return getattr(import_module(f"rewardmodels.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
