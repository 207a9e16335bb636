"""The gallery that takes a prompt's images, as both views that ask a model have it."""

import gradio as gr

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
