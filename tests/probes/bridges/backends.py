"""The three back ends over one tiny model of each family, made once."""

from functools import cache

from probes.bridges import BridgedModel, NNsightModel, TransformerLensModel
from probes.model import HookedModel
from tests.probes.hooked import FAMILIES, FURTHER, hooked

BRIDGES: dict[str, type[BridgedModel]] = {"transformer_lens": TransformerLensModel, "nnsight": NNsightModel}
BACKENDS = ("ours", *BRIDGES)
WITHOUT_ADAPTER = (
    "smolvlm",
    "qwen2_vl",
    "glm46v",
    "internvl",
    "aya_vision",
    "cohere2_vision",
    "glm4v_moe",
    "vipllava",
)
OTHER_TOWER = ("pixtral",)
"""A LLaVA by name, whose vision tower is not LLaVA's."""
CASES = [
    (bridge, family)
    for family in (*FAMILIES, *FURTHER)
    for bridge in BRIDGES
    if bridge == "nnsight" or family not in (*WITHOUT_ADAPTER, *OTHER_TOWER)
]
"""Bridge and family, where the bridge takes the family."""
ANSWER = [120, 121, 122]
TOLERANCE = 1e-4


@cache
def backend(name: str, family: str) -> HookedModel:
    """A back end over the family's sharp tiny model. Shared: leave it as found."""
    model = hooked(family)
    return model if name == "ours" else BRIDGES[name].of(model)
