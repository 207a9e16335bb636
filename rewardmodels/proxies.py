"""What the text-only proxy is: the second branch of shortcut-aware training. What it sees is in `rewardmodels.views`.

The branches hold main model and proxy in one module, so that one optimiser and one distributed wrapper serve both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
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

    def forward(
        self,
        main: dict[str, Tensor],
        proxy: dict[str, Tensor],
        proxy_loss: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """Score both branches.

        Args:
            main: Inputs with the images.
            proxy: Inputs as the proxy sees them.
            proxy_loss: Takes the proxy's logits, and gives the whole of what it learns by, whatever the main model
                says. Its gradients are then taken before the main model runs, so that the activations of the two are
                never held at once.

        Returns:
            Logits (batch, 1) of the main model, then of the proxy. With a loss for the proxy its logits have no
            gradient, and its loss comes third: going backwards from that hands the gradients on.
        """
        if proxy_loss is None:
            main_logits: Tensor = self.main(**main).logits
            with self._proxy_ready() as model:
                return main_logits, model(**proxy).logits
        with self._proxy_ready() as model:
            logits = model(**proxy).logits
            loss = proxy_loss(logits)
            learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
            # Backward is to run in the precisions of the forward, not to be cast itself.
            with torch.autocast(loss.device.type, enabled=False):
                gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        used = [(given, own) for given, own in zip(gradients, learning, strict=True) if given is not None]
        found, owners = [given for given, _ in used], [own for _, own in used]
        handed: Tensor = _Handed.apply(loss.detach(), found, *owners)
        return self.main(**main).logits, logits.detach(), handed

    def proxy_classifier(self) -> Any:
        """The proxy as a classifier of its own: itself, or its adapter merged into a copy of the backbone."""
        if not self.shared:
            return self._proxy()
        model = deepcopy(self.main)
        model.set_adapter(PROXY_ADAPTER)
        return model.merge_and_unload(adapter_names=[PROXY_ADAPTER])

    @contextmanager
    def _proxy_ready(self) -> Iterator[Any]:
        """The proxy, ready to be run: with shared weights, the main model by its other adapter."""
        if not self.shared:
            yield self._proxy()
            return
        try:
            self.main.set_adapter(PROXY_ADAPTER)
            yield self.main
        finally:
            # Changing adapters turns the gradients of the others off, which backward would then leave out.
            self.main.set_adapter("default")
            self._let_train()

    def _let_train(self) -> None:
        self.main.set_requires_grad("default", requires_grad=True)
        self.main.set_requires_grad(PROXY_ADAPTER, requires_grad=self.trains_proxy)

    def _proxy(self) -> Any:
        assert self.proxy is not None
        return self.proxy


class _Handed(torch.autograd.Function):
    """A loss whose gradients are known already; backward hands them on, times the gradient of the loss itself."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *_: Tensor) -> Tensor:
        """Return the loss; the further arguments are the parameters whose gradients are given."""
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Hand on, once."""
        gradients, ctx.gradients = ctx.gradients, []
        return None, None, *(given.mul_(outer) for given in gradients)


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
