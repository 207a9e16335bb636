"""Questions about small videos and an eager reference for them, for the tests of traces of videos.

The reference calls processor and model itself, and finds a video's columns by counting what it makes alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.families import ONE_VIDEO, VIDEOS
from probes.model import Question
from tests.probes.hooked import Reference, hooked, picture

Frames = NDArray[np.uint8]

MOVING = tuple(sorted(VIDEOS - ONE_VIDEO))
"""Families that take several videos in a prompt, and batches of them."""
SHARING = tuple(family for family in MOVING if family.startswith("glm"))
"""Families that mark images and videos by one token."""
TOGETHER = {"llava_onevision": 1}
"""Frames that share a token, where it is not two."""
SIZE = (60, 40)
"""(width, height) of a clip."""


def clip(frames: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Frames:
    """(frames, height, width, 3) of random colours, each frame its own."""
    noise = np.random.default_rng(seed).integers(0, 256, (frames, size[1], size[0], 3))
    return noise.astype(np.uint8)


def moving_questions(family: str) -> list[Question]:
    """Of unequal length: two videos between words, one without marks, and one before an image where that can be."""
    odd = 5 if TOGETHER.get(family, 2) == 2 else 4
    asked = [
        Question([], "1 <video> 2 <video> Which video shows the red ball?", [clip(4), clip(odd, seed=1)]),
        Question([], "How many digits?", [clip(4, seed=2)]),
    ]
    if family not in SHARING:
        asked.append(Question([picture(32, 32)], "Is <video> like <image> or not?", [clip(4, seed=3)]))
    return asked


def prompt_text(processor: Any, question: Question) -> str:
    """The question as one message, its marks replaced by blocks; without marks videos come first."""
    text = question.text if "<video>" in question.text else "<video>" * len(question.videos) + question.text
    blocks: list[dict[str, str]] = []
    for part in text.replace("<video>", "\0video\0").replace("<image>", "\0image\0").split("\0"):
        if part in ("video", "image"):
            blocks.append({"type": part})
        elif part:
            blocks.append({"type": "text", "text": part})
    messages = [{"role": "user", "content": blocks}]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def encoded(processor: Any, question: Question, **settings: Any) -> dict[str, Any]:
    """What the processor makes of one question, its frames left alone."""
    text = prompt_text(processor, question)
    asked: dict[str, Any] = {"videos": [np.asarray(video) for video in question.videos], "do_sample_frames": False}
    if question.images:
        asked["images"] = [list(question.images)]
    special = not text.startswith(processor.tokenizer.bos_token)
    return dict(processor(text=[text], return_tensors="pt", add_special_tokens=special, **(asked | settings)))


def moving_reference(family: str, question: Question, answer_ids: Sequence[int], **settings: Any) -> Reference:
    """One question alone through eager attention; its `images` are the columns of images, then of videos."""
    eager = hooked(family, "eager")
    inputs = encoded(eager.processor, question, **settings)
    prompt = inputs["input_ids"].shape[1]
    answer = torch.tensor([list(answer_ids)], dtype=torch.long)
    for key, new in (("input_ids", answer), ("attention_mask", torch.ones_like(answer))):
        inputs[key] = torch.cat([inputs[key], new], dim=1)
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer)], dim=1)
    with torch.no_grad():
        output = eager.model(**inputs, output_attentions=True, use_cache=False)
    attentions = [layer[0].numpy() for layer in output.attentions]
    return Reference(attentions, output.logits[0], _columns(family, question, inputs["input_ids"][0], settings), prompt)


def _columns(family: str, question: Question, ids: torch.Tensor, settings: dict[str, Any]) -> list[list[int]]:
    model = hooked(family)
    config = model.model.config
    found = []
    for kind, items in (("image", question.images), ("video", question.videos)):
        token = config.image_token_id if kind == "image" or family in SHARING else config.video_token_id
        columns = (ids == token).nonzero().flatten().tolist()
        for item in items:
            alone = Question([item], "<image> it") if kind == "image" else Question([], "<video> it", [item])
            made = encoded(model.processor, alone, **(settings if kind == "video" else {"videos": None}))
            count = int((made["input_ids"] == token).sum())
            found.append(columns[:count])
            columns = columns[count:]
        assert not columns or (kind == "image" and family in SHARING)
    return found
