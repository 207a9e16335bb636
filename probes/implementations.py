"""Whether an attention implementation is known and installed, and what to do where it is not. Loads no weights."""

from probes.inputs import InputError

_FLASH = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}
"""The package that each needs."""


def check_implementation(name: str) -> None:
    """Refuse an attention implementation that transformers does not know here, or whose package is not installed.

    A kernel of the hub is left to transformers, whether it is named by its repository or stands in for a package that
    is not installed: where the hub does not give it, loading the model says so.

    Raises:
        InputError: Naming the implementation and the remedy.
    """
    from transformers import utils
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    installed = {
        "flash_attention_2": utils.is_flash_attn_2_available,
        "flash_attention_3": utils.is_flash_attn_3_available,
        "flash_attention_4": utils.is_flash_attn_4_available,
        "flex_attention": utils.is_torch_flex_attn_available,
    }
    known = {"eager", *ALL_ATTENTION_FUNCTIONS.keys()}
    if name not in known and "/" not in name:
        raise InputError(f"attention implementation {name!r} is not known; there are {', '.join(sorted(known))}")
    if name in installed and not installed[name]() and not _is_stood_in_for(name):
        package = f"{_FLASH[name]} (or kernels, for the hub's build of it)" if name in _FLASH else "a newer torch"
        raise InputError(
            f"attention implementation {name!r} is not installed: install {package}, or load with "
            'attn_implementation="sdpa"'
        )


def _is_stood_in_for(name: str) -> bool:
    """Whether transformers runs something else where the package is missing: a kernel of the hub, or an NPU's own."""
    from transformers import utils
    from transformers.modeling_flash_attention_utils import FLASH_ATTN_KERNEL_FALLBACK

    if utils.is_torch_npu_available():
        return name == "flash_attention_2"
    return name in FLASH_ATTN_KERNEL_FALLBACK and utils.is_kernels_available()
