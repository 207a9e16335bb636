"""Arrays in, figures out: matplotlib for papers, plotly for screens. Imports nothing of this project, and no torch.

``viz.papers`` and ``viz.screens`` hold the same functions with the same arguments, ``viz.rewards`` those of reward
models (for papers); they load on first use.
"""

from importlib import import_module
from types import ModuleType

__all__ = ["papers", "rewards", "screens", "style"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'viz' has no attribute {name!r}")
    return import_module(f"viz.{name}")


def __dir__() -> list[str]:
    return __all__
