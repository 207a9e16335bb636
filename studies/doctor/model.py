"""What the doctor says of a checkpoint: family, image tokens, and the attention path of each layer."""

from typing import Any, NamedTuple

from probes.attention_calls import UnsupportedAttention
from probes.axes import images_known_by
from probes.implementations import check_implementation
from probes.inputs import InputError
from probes.loading import Loaded, context_length, load
from probes.model import HookedModel
from studies.auditing.mixers import Mixers, find_mixers
from studies.doctor.findings import Findings
from studies.doctor.layers import LayerPath, describe_layers, layer_paths


class Checked(NamedTuple):
    """A model that can be asked, and its layers."""

    model: HookedModel
    paths: list[LayerPath]
    mixers: Mixers


def load_pair(path_or_id: str, findings: Findings, *, attn_implementation: str | None, **options: Any) -> Loaded | None:
    """Load model and processor; None, with a problem, if the implementation asked for is not installed.

    Raises:
        InputError: If the checkpoint cannot be found or loaded.
    """
    if attn_implementation is not None:
        try:
            check_implementation(attn_implementation)
        except InputError as error:
            findings.problem(str(error))
            return None
    return load(path_or_id, attn_implementation=attn_implementation, **options)


def check_model(pair: Loaded, findings: Findings) -> Checked | None:
    """Report architecture, family and layers; None, with a problem, where no question can be put to the model."""
    model = pair.model
    parameters = sum(weight.numel() for weight in model.parameters())
    precision = str(model.dtype).removeprefix("torch.")
    findings.add(
        f"{type(model).__name__} ({model.config.model_type}), {parameters:,} parameters, {precision} on {model.device}"
    )
    context = context_length(model.config)
    findings.add(f"context: {'not said' if context is None else f'{context} tokens'}")
    known = _check_family(model, findings)
    paths, mixers = _check_layers(model, findings)
    try:
        hooked = HookedModel(model, pair.processor)
    except InputError as error:
        findings.problem(str(error))
        return None
    attended = any(path.records or path.unseen is not None for path in paths)
    return Checked(hooked, paths, mixers) if known and attended else None


def _check_family(model: Any, findings: Findings) -> bool:
    try:
        module = images_known_by(model.config.model_type)
    except InputError as error:
        findings.problem(str(error))
        return False
    findings.add(f"image tokens: known, {module}")
    return True


def _check_layers(model: Any, findings: Findings) -> tuple[list[LayerPath], Mixers]:
    findings.section("attention of each decoder layer")
    try:
        mixers = find_mixers(model)
        paths = layer_paths(model, mixers)
    except UnsupportedAttention as error:
        findings.problem(str(error))
        return [], Mixers()
    findings.add(*describe_layers(paths))
    recorded, unseen = sum(path.records for path in paths), sum(path.unseen is not None for path in paths)
    more = f"; whether {unseen} more are, a question with images tells" if unseen else ""
    findings.add(f"{recorded} of {len(paths)} layers are recorded{more}")
    if mixers:
        findings.add(f"hidden attention is read in {len(mixers.read)} layers without softmax")
    failed = [path for path in paths if path.problem is not None]
    if failed:
        findings.problem(f"{len(failed)} layers with attention cannot be recorded, layer {failed[0].layer} for one")
    elif not recorded and not unseen:
        findings.problem("no layer has attention, so there is nothing to audit: take another model")
    return paths, mixers
