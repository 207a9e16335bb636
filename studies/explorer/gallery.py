"""What views that ask a model share: the gallery of a prompt's images, examples to click, plots that come and go."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from probes.inputs import InputError
from studies.explorer.examples import Example, images_of
from studies.explorer.looking import MAX_IMAGES


def make_gallery(prefix: str) -> gr.Gallery:
    """Lay out a gallery inside the current column.

    Args:
        prefix: Start of the element's id on the page.
    """
    return gr.Gallery(
        label=f"Images, 1 to {MAX_IMAGES}",
        type="filepath",
        format="png",  # without loss: the model gets an example's own pixels
        file_types=["image"],
        sources=["upload", "clipboard"],
        columns=4,
        fit_columns=False,
        height=190,
        object_fit="contain",
        elem_id=f"{prefix}-images",
        interactive=True,
        buttons=[],
    )


def make_examples(cards: Sequence[str], prefix: str, label: str = "Examples") -> gr.Dataset:
    """Lay out examples to click inside the current column, all on one page; a click gives its index.

    Args:
        cards: HTML of each.
        prefix: Start of the element's id on the page.
        label: What stands above them.
    """
    return gr.Dataset(
        label=label,
        components=["html"],
        samples=[[card] for card in cards],
        type="index",
        layout="gallery",
        samples_per_page=len(cards),
        elem_id=f"{prefix}-examples",
    )


def opened(examples: Sequence[Example], index: int) -> tuple[Any, str]:
    """The images of an example as a gallery takes them, and its question.

    Raises:
        gr.Error: If there is no such example, or an image is broken.
    """
    try:
        return [(image, None) for image in images_of(examples, index)], examples[index].question
    except InputError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error


def plot_update(figure: Any) -> Any:
    """The update that shows a figure in its plot, or hides the plot where there is none."""
    return gr.update(value=figure, visible=figure is not None)
