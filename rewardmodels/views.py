"""What stands in for a prompt's images: white pictures, none, or another prompt's. Knows no model. No torch.

A text-only proxy is trained on a view (`rewardmodels.proxies`), and a reward model is questioned by them
(`rewardmodels.questioning`).
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from PIL import Image

from probes.errors import counted
from probes.inputs import IMAGE_MARK, ImageRef, InputError, Turn

View = Literal["blank", "removed", "shuffled"]
VIEWS: tuple[str, ...] = get_args(View)
"""What may be shown in place of a prompt's images.

"blank": white images; "removed": no images, and no tokens for them; "shuffled": another prompt's images.
"""
PAPER_BLANK = (224, 224)
"""Side lengths of the white image in the shortcut-aware reward model paper's released code."""
PAPER_VIEW = "blank-224"
PROXY_VIEWS = (*VIEWS, PAPER_VIEW)
"""What a proxy may see: the views, and white images of `PAPER_BLANK`, whatever the size of those they stand for.

Where an image's size decides how many tokens it takes, the proxy's sequences then differ in length from the model's.
"""

_MARK = re.compile(rf"\s*(?:{re.escape(IMAGE_MARK)}\s*)+")

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
    """A prompt with neither images nor marks, and its words as they were; see `without_marks`.

    >>> without_images((Turn("user", "1 <image> 2 <image> Which?", (ImageRef("a.png"), ImageRef("b.png"))),))
    (Turn(role='user', text='1 2 Which?', images=()),)
    """
    return tuple(Turn(turn.role, without_marks(turn.text) if turn.images else turn.text) for turn in prompt)


def without_marks(text: str) -> str:
    """A text without `<image>` marks. What stood around one is joined by a line break or a space; the rest stays.

    >>> without_marks("<image>\\nWhich?\\nA. one <image>\\nB. two")
    'Which?\\nA. one\\nB. two'
    """
    return _MARK.sub(_joint, text) if IMAGE_MARK in text else text


def _joint(found: re.Match[str]) -> str:
    """What a mark leaves: nothing at either end of a text."""
    if found.start() == 0 or found.end() == len(found.string):
        return ""
    return "\n" if "\n" in found[0] else " "


def with_images_of(prompt: Sequence[Turn], other: Sequence[Turn]) -> Turns:
    """A prompt with another prompt's images in the places of its own, in order.

    Raises:
        InputError: If the two have different numbers of images.
    """
    images = [image for turn in other for image in turn.images]
    wanted = sum(len(turn.images) for turn in prompt)
    if len(images) != wanted:
        raise InputError(
            f"the prompt has {counted(wanted, 'image')} and the other one {len(images)}: they cannot change places"
        )
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
    """Each prompt under a view, made when it is asked for.

    Args:
        prompts: All prompts.
        clusters: What each was made from; see `partners`.
        view: One of `PROXY_VIEWS`.
        seed: Draws whose images are shown where they are shuffled.

    Raises:
        InputError: If the view is unknown, or prompts have images and no partner to change them with.
    """
    if view not in PROXY_VIEWS:
        raise InputError(f"the view is {view!r}: there are {', '.join(PROXY_VIEWS)}")
    if view in ("blank", PAPER_VIEW):
        size = PAPER_BLANK if view == PAPER_VIEW else None
        return lambda place: blanked(prompts[place], size)
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
