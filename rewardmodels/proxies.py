"""What the text-only proxy sees, and what the proxy is: the second branch of shortcut-aware training.

The views replace a prompt's images and know no model; they also question reward models (`rewardmodels.deltas`). The
branches hold main model and proxy in one module, so that one optimiser and one distributed wrapper serve both.
"""

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import Image
from torch import Tensor, nn

from probes.inputs import IMAGE_MARK, ImageRef, InputError, Turn

if TYPE_CHECKING:
    from peft import PeftConfig

View = Literal["blank", "removed", "shuffled"]
VIEWS: tuple[str, ...] = get_args(View)
"""What a proxy may see in place of the images.

"blank": white images; "removed": no images, and no tokens for them; "shuffled": another prompt's images.
"""
PAPER_BLANK = (224, 224)
"""Side lengths of the white image in the shortcut-aware reward model paper's released code."""
PROXY_ADAPTER = "proxy"

Turns = tuple[Turn, ...]


def blanked(prompt: Sequence[Turn], size: tuple[int, int] | None = None) -> Turns:
    """A prompt with white images, as many as there were.

    Args:
        prompt: Turns.
        size: (width, height) of each; by default that of the image it stands for, so that the number of tokens stays.
            The shortcut-aware reward model paper's released code takes `PAPER_BLANK`.

    Raises:
        InputError: If an image cannot be read.
    """

    def white(image: ImageRef) -> ImageRef:
        return ImageRef.of(Image.new("RGB", size or image.size(), "white"))

    return tuple(replace(turn, images=tuple(map(white, turn.images))) for turn in prompt)


def without_images(prompt: Sequence[Turn]) -> Turns:
    """A prompt with neither images nor marks; what stood around a mark is joined by one space.

    >>> without_images((Turn("user", "1 <image> 2 <image> Which?", (ImageRef("a.png"), ImageRef("b.png"))),))
    (Turn(role='user', text='1 2 Which?', images=()),)
    """
    return tuple(
        Turn(turn.role, " ".join("".join(turn.text.split(IMAGE_MARK)).split()) if turn.images else turn.text)
        for turn in prompt
    )


def with_images_of(prompt: Sequence[Turn], other: Sequence[Turn]) -> Turns:
    """A prompt with another prompt's images in the places of its own, in order.

    Raises:
        InputError: If the two have different numbers of images.
    """
    images = [image for turn in other for image in turn.images]
    wanted = sum(len(turn.images) for turn in prompt)
    if len(images) != wanted:
        raise InputError(f"the prompt has {wanted} images and the other one {len(images)}: they cannot change places")
    given = iter(images)
    return tuple(replace(turn, images=tuple(next(given) for _ in turn.images)) for turn in prompt)


def partners(image_counts: Sequence[int], clusters: Sequence[str], seed: int) -> list[int | None]:
    """For each prompt another one whose images it is shown: of as many images, and of another cluster.

    Args:
        image_counts: Number of images of each prompt.
        clusters: What each prompt was made from; a partner is of another one, or its images could be the same.
        seed: Draws the partners.

    Returns:
        Per prompt the place of its partner; None where none fits or it has no images.
    """
    groups: dict[int, list[int]] = {}
    for place, count in enumerate(image_counts):
        groups.setdefault(count, []).append(place)
    found: list[int | None] = [None] * len(image_counts)
    rng = random.Random(seed)
    for count, members in groups.items():
        if count == 0:
            continue
        order = members[:]
        rng.shuffle(order)
        for at, place in enumerate(order):
            turns = (order[(at + step) % len(order)] for step in range(1, len(order)))
            found[place] = next((other for other in turns if clusters[other] != clusters[place]), None)
    return found


def viewed(
    prompts: Sequence[Sequence[Turn]], clusters: Sequence[str], view: str, seed: int = 0
) -> Callable[[int], Turns]:
    """What a proxy sees of each prompt, made when it is asked for.

    Args:
        prompts: All prompts.
        clusters: What each was made from; see `partners`.
        view: One of `VIEWS`.
        seed: Draws whose images are shown where they are shuffled.

    Raises:
        InputError: If the view is unknown, or prompts have images and no partner to change them with.
    """
    if view not in VIEWS:
        raise InputError(f"the proxy's view is {view!r}: there are {', '.join(VIEWS)}")
    if view == "blank":
        return lambda place: blanked(prompts[place])
    if view == "removed":
        return lambda place: without_images(prompts[place])
    counts = [sum(len(turn.images) for turn in prompt) for prompt in prompts]
    others = partners(counts, clusters, seed)
    alone = [place for place, (count, other) in enumerate(zip(counts, others, strict=True)) if count and other is None]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(prompts)} prompts have no other of as many images to change images with (the first "
            f"is number {alone[0]}): show blank images, or none"
        )

    def shuffled(place: int) -> Turns:
        other = others[place]
        return tuple(prompts[place]) if other is None else with_images_of(prompts[place], prompts[other])

    return shuffled


class Branches(nn.Module):
    """Main model and proxy side by side; each call scores both, each its own inputs.

    Args:
        main: The classifier that is kept.
        proxy: The classifier that sees no image; with `shared`, None.
        shared: Whether `main` is a peft model that holds the proxy as its adapter "proxy", on one frozen backbone.
        trains_proxy: Whether the proxy learns along, or is what it was.
    """

    def __init__(self, main: Any, proxy: Any | None, shared: bool, trains_proxy: bool) -> None:
        super().__init__()
        self.main = main
        self.proxy = proxy
        self.shared = shared
        self.trains_proxy = trains_proxy
        if shared:
            self._let_train()
        else:
            self._proxy().requires_grad_(trains_proxy)

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
        main: A classifier, as it is before training.
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
