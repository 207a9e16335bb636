"""What the right answer of one question loses without each expert. It knows models; it averages nothing.

An expert that none of the tokens goes to changes nothing, to the last bit, and is not asked. Importing it loads no
torch.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from probes.errors import InputError
from probes.experts.load import called
from studies.multi_image import MultiImageQuestion
from studies.routing.recording import encoded
from studies.routing.shards import Arrays

if TYPE_CHECKING:
    from probes.model import HookedModel


def knocked_out(model: "HookedModel", record: MultiImageQuestion, tokens: Literal["all", "images", "text"]) -> Arrays:
    """Drop in the right answer's log-probability when the question's tokens go without each expert in turn.

    Returns:
        "name" and "error" (empty if all went well), and then "layers", "effects" (layers, experts) in nats, and
        "shared" (layers,), NaN where a layer has no shared experts.
    """
    try:
        return {"name": np.array(record.id), "error": np.array(""), **_effects(model, record, tokens)}
    except InputError as error:
        return {"name": np.array(record.id), "error": np.array(str(error))}


def _effects(model: "HookedModel", record: MultiImageQuestion, tokens: Literal["all", "images", "text"]) -> Arrays:
    from probes.experts.effects import SHARED, chosen_tokens, expert_effects
    from probes.experts.layers import expert_layers
    from probes.model import Question

    batch = encoded(model, [record])
    routing = model.routing(batch)
    concerned = chosen_tokens(batch, tokens)[batch.inputs["attention_mask"].bool().cpu()].numpy()
    used = called(routing.indices[:, concerned], routing.experts).any(axis=1)
    with_shared = [layer for layer, mixture in expert_layers(model.model).items() if mixture.shared]
    asked: list[tuple[int, int | str]] = [
        (routing.layers[at], int(expert)) for at, expert in np.argwhere(used)
    ]  # fmt: skip
    asked += [(layer, SHARED) for layer in with_shared]
    found = expert_effects(model, Question(record.images, record.question), record.answer, asked, tokens)
    effects, shared = np.zeros(used.shape), np.full(len(routing.layers), np.nan)
    effects[used] = found[: int(used.sum())]
    shared[[routing.layers.index(layer) for layer in with_shared]] = found[int(used.sum()) :]
    return {"layers": np.array(routing.layers), "effects": effects, "shared": shared}
