"""What the text-only proxy is: the second branch of shortcut-aware training. What it sees is in `rewardmodels.views`.

The branches hold main model and proxy in one module, so that one optimiser and one distributed wrapper serve both.
"""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from probes.inputs import InputError

if TYPE_CHECKING:
    from peft import PeftConfig

PROXY_ADAPTER = "proxy"


class Branches(nn.Module):
    """Main model and proxy side by side; each call scores both, each its own inputs.

    Args:
        main: The classifier that is kept.
        proxy: The classifier that sees no image; with `shared`, None.
        shared: Whether `main` is a peft model that holds the proxy as its adapter "proxy", on one frozen backbone.
        trains_proxy: Whether the proxy learns along, in the parts that it was given to learn by, or is what it was.
    """

    def __init__(self, main: Any, proxy: Any | None, shared: bool, trains_proxy: bool) -> None:
        super().__init__()
        self.main = main
        self.proxy = proxy
        self.shared = shared
        self.trains_proxy = trains_proxy
        if shared:
            self._let_train()
        elif not trains_proxy:
            self._proxy().requires_grad_(False)

    @property
    def config(self) -> Any:
        """The main model's configuration."""
        return self.main.config

    @property
    def dtype(self) -> Any:
        """The main model's precision."""
        return self.main.dtype

    @property
    def device(self) -> Any:
        """Where the main model is."""
        return self.main.device

    @property
    def warnings_issued(self) -> dict[str, bool]:
        """Asked for by transformers' trainer."""
        return {}

    def add_model_tags(self, tags: Any) -> None:
        """Tag the main model."""
        self.main.add_model_tags(tags)

    def forward(self, main: dict[str, Tensor], proxy: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Score both branches.

        Args:
            main: Inputs with the images.
            proxy: Inputs as the proxy sees them.

        Returns:
            Logits (batch, 1) of the main model, then of the proxy.
        """
        if not self.shared:
            return self.main(**main).logits, self._proxy()(**proxy).logits
        logits: Tensor = self.main(**main).logits
        with_proxy = self.main
        try:
            with_proxy.set_adapter(PROXY_ADAPTER)
            return logits, with_proxy(**proxy).logits
        finally:
            # Changing adapters turns the gradients of the others off, which backward would then leave out.
            with_proxy.set_adapter("default")
            self._let_train()

    def proxy_classifier(self) -> Any:
        """The proxy as a classifier of its own: itself, or its adapter merged into a copy of the backbone."""
        if not self.shared:
            return self._proxy()
        model = deepcopy(self.main)
        model.set_adapter(PROXY_ADAPTER)
        return model.merge_and_unload(adapter_names=[PROXY_ADAPTER])

    def _let_train(self) -> None:
        self.main.set_requires_grad("default", requires_grad=True)
        self.main.set_requires_grad(PROXY_ADAPTER, requires_grad=self.trains_proxy)

    def _proxy(self) -> Any:
        assert self.proxy is not None
        return self.proxy


def copied_branches(main: Any, pretrained: Any | None = None, trains_proxy: bool = True) -> Branches:
    """A full copy beside the main model, as in the shortcut-aware reward model paper.

    Args:
        main: A classifier, as it is before training; the copy learns by the parts that are not frozen in it.
        pretrained: The proxy, where it was trained before; by default a copy of `main`.
        trains_proxy: Whether it learns along.
    """
    return Branches(main, deepcopy(main) if pretrained is None else pretrained, False, trains_proxy)


def adapter_branches(main: Any, peft_config: "PeftConfig", trains_proxy: bool = True) -> Branches:
    """A LoRA branch beside the main model's LoRA, on one frozen backbone; heads are apart.

    Args:
        main: A peft model with the adapter "default".
        peft_config: The proxy's adapter; its head has to be among `modules_to_save`.
        trains_proxy: Whether it learns along.

    Raises:
        InputError: If `main` is no peft model, or either adapter shares its head.
    """
    own = getattr(main, "peft_config", {}).get("default")
    if own is None:
        raise InputError("a LoRA proxy needs a main model that trains by LoRA too, as they share the frozen backbone")
    for config in (own, peft_config):
        if "score" not in (getattr(config, "modules_to_save", None) or ()):
            raise InputError('the adapters need modules_to_save=["score"]: the head of each is its own')
    main.add_adapter(PROXY_ADAPTER, peft_config)
    return Branches(main, None, True, trains_proxy)


def saved_proxy(folder: str | Path) -> Path:
    """Where a checkpoint keeps its proxy."""
    return Path(folder) / "proxy"
