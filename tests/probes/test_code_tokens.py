"""Families whose images are grids of codes: each cell's token is its own code, and its latent sees its cell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.families import family_of
from probes.inputs import InputError
from probes.model import HookedModel
from probes.spans import find_image_spans
from tests.probes.hooked import hooked
from tests.probes.processors import build_model
from tests.probes.recipes_codes import CODES
from tests.probes.span_cases import CASES, Encoded, encode, processor_of
from tests.probes.test_spans_errors import SIZES, one_line
from tests.probes.test_spans_errors import encode as encode_two
from tests.probes.test_spans_model import background

SIZE = (64, 40)
CELL = 8


class Seen:
    """What one forward made of the images: latents before they become codes, and what the decoder was fed."""

    def __init__(self, model: Any, inputs: Any) -> None:
        latents: list[torch.Tensor] = []
        embedded: list[torch.Tensor] = []
        encoder = model.model.vqmodel
        first = getattr(model.model, "text_model", model.model).layers[0]
        handles = [
            encoder.quant_conv.register_forward_hook(lambda _module, _args, output: latents.append(output.detach())),
            first.register_forward_pre_hook(lambda _module, args: embedded.append(args[0].detach())),
        ]
        try:
            with torch.no_grad():
                model(**inputs, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        (self.latents,), (self.embedded,) = latents, embedded

    def codes(self, model: Any, image: int) -> torch.Tensor:
        """(rows, columns) of code numbers."""
        found = model.model.vqmodel.quantize(self.latents if self.latents.ndim == 4 else self.latents.transpose(1, 2))
        codes = found[-1] if isinstance(found, tuple) else found
        own: torch.Tensor = codes.reshape(len(self.latents), *self.latents.shape[-2:])[image]
        return own


def told_apart(family: str, encoded: Encoded) -> Any:
    """A model whose codebook holds some of the latents of these images, so that their codes differ."""
    model = build_model(family, encoded.processor)
    latents = Seen(model, encoded.inputs).latents.movedim(1, -1).flatten(0, -2)
    codebook = model.model.vqmodel.quantize.embedding.weight
    chosen = np.random.default_rng(0).choice(len(latents), len(codebook), replace=False)
    with torch.no_grad():
        codebook.copy_(latents[chosen])
    return model


@pytest.mark.parametrize("family", CODES)
def test_each_cells_token_is_the_code_of_that_cell(family: str) -> None:
    rows = [[background((40, 70), 1)], [background((80, 40), 2), background((60, 60), 3)]]
    encoded = encode(CASES[family], rows)
    model = told_apart(family, encoded)
    seen = Seen(model, encoded.inputs)
    table, image = model.model.vocabulary_mapping.img2bpe, 0
    for row, spans in enumerate(encoded.spans):
        for span in spans:
            codes = seen.codes(model, image)
            cells = span.cells()
            fed = seen.embedded[row, span.tokens[[cell.token for cell in cells]]]
            made = torch.tensor([table[int(codes[cell.row, cell.column])] for cell in cells])
            assert len(set(made.tolist())) > 4
            assert torch.equal(fed, model.get_input_embeddings()(made))
            assert not torch.equal(fed, model.get_input_embeddings()(made.roll(1)))
            image += 1


@pytest.mark.parametrize("family", CODES)
def test_a_latent_sees_a_window_about_its_cell(family: str) -> None:
    """Strided convolutions that pad on one side move the window by half a cell, and by no more."""
    coder = local(build_model(family, processor_of(CASES[family])).model.vqmodel)
    pixels = torch.rand(1, 3, 128, 128, requires_grad=True)
    latents = coder.encoder(pixels[:, None].repeat(1, 4, 1, 1, 1) if family == "emu3" else pixels)
    row, column = 8, 6
    latents[..., row, column].sum().backward()
    assert pixels.grad is not None
    for place, gradient in ((row, pixels.grad.abs().sum((0, 1, 3))), (column, pixels.grad.abs().sum((0, 1, 2)))):
        assert abs(middle(gradient) - CELL * place) <= CELL / 2
        assert abs(middle(gradient) - CELL * (place + 1)) > CELL / 2 < abs(middle(gradient) - CELL * (place - 1))


def test_a_code_of_emu3_is_drawn_into_its_cell() -> None:
    coder = local(build_model("emu3", processor_of(CASES["emu3"])).model.vqmodel)
    codes = torch.zeros(1, 16, 16, dtype=torch.long)
    row, column = 8, 6
    changed = codes.clone()
    changed[:, row, column] = 1
    with torch.no_grad():
        change = (coder.decode(changed) - coder.decode(codes)).abs().squeeze().sum(0)
    assert (middle(change.sum(1)), middle(change.sum(0))) == (CELL * row, CELL * column)


def local(coder: Any) -> Any:
    """The coder without norms and attention, which mix the whole image, and residual blocks, which widen windows."""
    for module in list(coder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, Unchanged())
            elif name in ("conv2", "out_proj", "proj_out"):
                for weight in child.parameters():
                    torch.nn.init.zeros_(weight)
    return coder


class Unchanged(torch.nn.Module):
    """In a norm's place."""

    def forward(self, hidden: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
        return hidden


def middle(changed: torch.Tensor) -> float:
    """Pixel left of the middle of what is not 0, from the middle of the first cell."""
    places = changed.nonzero().flatten()
    return float(places.min() + places.max()) / 2 - (CELL - 1) / 2


def test_row_marks_of_emu3_have_no_cell() -> None:
    span = encode(CASES["emu3"], [[background(SIZE)]]).spans[0][0]
    (tile,) = span.tiles
    assert len(span.tokens) == tile.rows * (tile.columns + 1) and len(span.cells()) == tile.rows * tile.columns
    marks = {tile.offset(row, tile.columns) for row in range(tile.rows)}
    assert not marks & {cell.token for cell in span.cells()}


@pytest.mark.parametrize(
    "family, name, message",
    [("emu3", "downsample_ratio", "token for every 16 pixels"), ("chameleon", "image_seq_length", "writes 16 tokens")],
)
def test_a_processor_that_does_not_fit_the_model_is_refused(family: str, name: str, message: str) -> None:
    processor, config, inputs = encode_two(family)
    if family == "emu3":
        setattr(processor, name, 16)
    else:
        config.vq_config.channel_multiplier = [1, 1, 1]
    with pytest.raises(InputError, match=message) as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


def test_a_saved_chameleon_comes_back_without_its_template_and_is_refused(tmp_path: Path) -> None:
    model = hooked("chameleon")
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no chat template, .* set processor.chat_template"):
        HookedModel.from_pretrained(tmp_path, device="cpu")


def test_emu3_needs_the_inputs_sizes() -> None:
    processor, config, inputs = encode_two("emu3")
    assert family_of("emu3").pixel_tiles(inputs) == 3
    del inputs["image_sizes"]
    with pytest.raises(InputError, match="no image_sizes: pass everything"):
        find_image_spans(inputs, config, processor, SIZES)
