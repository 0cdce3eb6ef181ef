"""What the pocket VLM answers on held-out scenes, and where it looks closer first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.answers import is_right
from pipeline.errors import GrammarError, InvalidBox
from pipeline.grammar import parse
from pipeline.train.pocket_vlm_batch import pictures_of, tokenizer, words_of
from pipeline.train.pocket_vlm_chats import CLEAR, FAMILY, question_of
from pipeline.train.pocket_vlm_scenes import MARKS, RESOLUTION, Scene, held_out_scene
from pipeline.trajectory import ImageBlock, Message, TextBlock
from pipeline.turns import Turn
from pipeline.views import View, zoomed

MOST_TOKENS = 32
"""Of a turn."""
TOGETHER = 32
"""Conversations that are carried on at once."""
AT_ONCE = f"<think> {CLEAR} </think>\n<answer> "
"""How a turn begins that takes no look."""

Asked = tuple[Sequence[Message], Sequence[np.ndarray]]
"""Messages, and the views of their pictures, uint8 HWC."""
Speak = Callable[[Sequence[Asked]], list[str]]
"""The text of the next turn of each conversation."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts over scenes of one kind."""

    scenes: int
    right: int
    """Answers that are the mark."""
    looked: int
    """Conversations with a look."""
    held: int
    """Looks that show the whole thing."""


def evaluate(speak: Speak, count: int, *, begin: int = 0) -> dict[str, Figures]:
    """Figures of held-out scenes by whether the mark is `readable` in the first view or `small`.

    A look is answered after; a second one is not had. The first scene is number `begin`.
    """
    kinds = {"readable": np.zeros(4, int), "small": np.zeros(4, int)}
    for start in range(begin, begin + count, TOGETHER):
        numbers = range(start, min(start + TOGETHER, begin + count))
        scenes = [held_out_scene(number) for number in numbers]
        for scene, told in zip(scenes, _carried_on(speak, scenes), strict=True):
            kinds["readable" if scene.things[0].readable else "small"] += (1, *told)
    return {name: Figures(*map(int, counts)) for name, counts in kinds.items()}


def speaker(model: Any, *, begun: str = "") -> Speak:
    """How a Qwen3-VL speaks, always its likeliest token; `begun` is how each turn has to begin."""
    words = tokenizer()
    prefix = torch.tensor(words.encode(begun, add_special_tokens=False), dtype=torch.int64)

    def speak(asked: Sequence[Asked]) -> list[str]:
        told = words_of(asked, asking=True)
        pictures = pictures_of([view for _, views in asked for view in views])
        more = prefix.expand(len(asked), -1)
        ids = torch.cat([told.ids, more], 1)
        with torch.inference_mode():
            said = model.generate(
                input_ids=ids,
                attention_mask=torch.cat([told.there, torch.ones_like(more)], 1),
                mm_token_type_ids=torch.cat([told.visual, torch.zeros_like(more)], 1),
                pixel_values=pictures.patches.to(model.dtype),
                image_grid_thw=pictures.grids,
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
            )
        ends = said[:, told.ids.shape[1] :]
        texts: list[str] = words.batch_decode(ends, skip_special_tokens=True)
        return texts

    return speak


def _carried_on(speak: Speak, scenes: Sequence[Scene]) -> list[tuple[bool, bool, bool]]:
    """(right, looked, held) of the conversation about each scene."""
    images = [scene.image() for scene in scenes]
    asked: list[Asked] = []
    for scene, image in zip(scenes, images, strict=True):
        messages, view = question_of(scene, image)
        asked.append((messages, [view.pixels]))
    last = speak(asked)
    looks = {n: look for n, image in enumerate(images) if (look := _look(image, last[n]))}
    again = [_shown(asked[n], last[n], look) for n, look in looks.items()]
    for n, text in zip(looks, speak(again) if again else [], strict=True):
        last[n] = text
    held = {n: _holds(look, scenes[n]) for n, look in looks.items()}
    return [
        (_is_right(last[n], scene), n in looks, held.get(n, False))
        for n, scene in enumerate(scenes)
    ]


def _holds(look: View, scene: Scene) -> bool:
    return look.observation.region.contains(scene.things[0].box)


def _look(image: Image.Image, text: str) -> View | None:
    """What the first box that a turn asks for shows; None where it asks for none that is valid."""
    turn = _turn(text)
    if turn is None or not turn.calls:
        return None
    try:
        box = FAMILY.read(turn.calls[0].box, image.size)
        return zoomed(image, box, RESOLUTION, parent=0)
    except InvalidBox:
        return None


def _shown(asked: Asked, text: str, look: View) -> Asked:
    """The conversation after a turn and the look that it asked for."""
    messages, views = asked
    said = Message(role="assistant", content=[TextBlock(type="text", text=text)])
    picture = ImageBlock(type="image", index=1, box=None, region=None, size=None)
    return [*messages, said, Message(role="user", content=[picture])], [*views, look.pixels]


def _is_right(text: str, scene: Scene) -> bool:
    turn = _turn(text)
    return bool(turn and turn.answer and is_right(turn.answer, MARKS[scene.things[0].mark]))


def _turn(text: str) -> Turn | None:
    """The turn a text says, None where it says none."""
    try:
        return parse(text, "cof-v2")
    except GrammarError:
        return None
