"""The same model through TransformerLens and through nnsight: the same traces, knock-outs and patches.

Each library stands behind one file here, and nothing else imports it; names load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.bridges.bridged import BridgedModel as BridgedModel
    from probes.bridges.nnsight import NNsightModel as NNsightModel
    from probes.bridges.nnsight import ServedModel as ServedModel
    from probes.bridges.runner import UnsupportedBridge as UnsupportedBridge
    from probes.bridges.transformer_lens import TransformerLensModel as TransformerLensModel

_HOME = {
    "BridgedModel": "bridged",
    "NNsightModel": "nnsight",
    "ServedModel": "nnsight",
    "TransformerLensModel": "transformer_lens",
    "UnsupportedBridge": "runner",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'probes.bridges' has no attribute {name!r}")
    return getattr(import_module(f"probes.bridges.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
