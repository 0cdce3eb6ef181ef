"""Conversations about drawn scenes, as `trajectory.render` writes them, and what each cell shows.

Owns the tasks that the pocket VLM is taught with their pictures and dense targets. A picture's
cells are the merged patches that the model sees of it, in reading order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.agent.families import FAMILIES
from pipeline.answers import ASKS_FOR_BOX
from pipeline.geometry import Box, Size, smart_resize
from pipeline.samples import Sample, rng_for
from pipeline.train.pocket_vlm_scenes import (
    MARKS,
    READABLE_PX,
    RESOLUTION,
    Scene,
    Thing,
    training_scene,
)
from pipeline.trajectory import FocusStep, Message, Observation, Trajectory, render
from pipeline.views import View, first_view, whole_at, zoomed

FAMILY = FAMILIES["qwen3-vl"]
CELL = 32
"""Side of a merged cell, px of what the model sees."""
CLEAR, FAINT, CLOSER, THERE = (
    "The mark is large enough to read.",
    "The mark is too small to read, so I look closer.",
    "Now the mark can be read.",
    "I see it there.",
)
"""What is thought; which of them comes first decides whether there is a look."""
NONE = -1
"""The kind of a cell that has none, or none that can be read."""

Task = Literal["where", "read", "whole"]


@dataclass(frozen=True, slots=True)
class Cells:
    """What the cells of one picture show; arrays of as many rows as there are cells, row-major."""

    shape: np.ndarray
    """int64: place in `SHAPES` of the thing whose middle is in the cell, else `NONE`."""
    color: np.ndarray
    """int64: its colour, likewise."""
    mark: np.ndarray
    """int64: its mark; `NONE` also where it is too small to read."""
    sides: np.ndarray
    """float32 (cells, 4): from the cell's middle to its left, top, right and bottom, in cells."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation with its pictures."""

    messages: list[Message]
    views: tuple[np.ndarray, ...]
    """uint8 HWC, in the order of the messages' pictures."""
    cells: tuple[Cells, ...]
    """One for each view."""


def training_chat(seed: int, index: int, along: float) -> Chat:
    """A conversation to learn from: places and marks first, more and more whole ones.

    `along` in [0, 1] is how far the training is.
    """
    rng = rng_for(seed, "pocket-vlm-task", index)
    whole = 0.1 + 0.7 * along
    share = [0.6 * (1 - whole), 0.4 * (1 - whole), whole]
    tasks: list[Task] = ["where", "read", "whole"]
    scene = training_scene(seed, index, along)
    return chat_of(scene, tasks[int(rng.choice(3, p=share))])


def chat_of(scene: Scene, task: Task) -> Chat:
    """The conversation about the scene's first thing.

    `where` asks for its box, `read` for its mark on a close view alone, `whole` for its mark on
    the picture, with a look where the mark cannot be read without.
    """
    image, thing = scene.image(), scene.things[0]
    first = first_view(image, RESOLUTION)
    look = zoomed(image, thing.said, RESOLUTION, parent=0)
    if task == "read":
        picture = Image.fromarray(look.pixels)
        alone = whole_at(picture.size, RESOLUTION)
        again = first_view(picture, RESOLUTION)
        messages = _said(_sample(picture, _asks_mark(thing)), alone, (), CLEAR, thing)
        return Chat(messages, (again.pixels,), (cells_of(scene, look),))
    if task == "where":
        messages = _said(
            _sample(image, f"Where is the {thing.name}? {ASKS_FOR_BOX}"),
            *(first.observation, (), THERE, thing),
            answer=str([int(value) for value in thing.said.as_list()]),
        )
        return Chat(messages, (first.pixels,), (cells_of(scene, first),))
    sample = _sample(image, _asks_mark(thing))
    if thing.readable:
        messages = _said(sample, first.observation, (), CLEAR, thing)
        return Chat(messages, (first.pixels,), (cells_of(scene, first),))
    step = FocusStep(FAINT, (thing.said,), (True,), observation=look.observation)
    messages = _said(sample, first.observation, (step,), CLOSER, thing)
    return Chat(
        messages, (first.pixels, look.pixels), (cells_of(scene, first), cells_of(scene, look))
    )


def seen_size(size: Size) -> Size:
    """(width, height) at which the model sees a view: what its processor makes of it."""
    rows, cols = smart_resize(size[1], size[0], CELL, FAMILY.min_pixels, FAMILY.max_pixels)
    return cols, rows


def cells_of(scene: Scene, view: View) -> Cells:
    """What the cells of a view show of a scene."""
    width, height = seen_size(view.observation.size)
    cols, rows = width // CELL, height // CELL
    kinds = np.full((3, rows * cols), NONE, np.int64)
    sides = np.zeros((rows * cols, 4), np.float32)
    for thing in scene.things:
        x0, y0, x1, y1 = _in_cells(thing.box, view.observation, (cols, rows))
        col, row = int((x0 + x1) // 2), int((y0 + y1) // 2)
        if not (0 <= col < cols and 0 <= row < rows):
            continue
        place = row * cols + col
        legible = thing.box.width * view.observation.magnification >= READABLE_PX
        kinds[:, place] = thing.shape, thing.color, thing.mark if legible else NONE
        x, y = col + 0.5, row + 0.5
        sides[place] = x - x0, y - y0, x1 - x, y1 - y
    return Cells(kinds[0], kinds[1], kinds[2], sides)


def boxes_in(cells: Cells, view: Observation) -> dict[int, Box]:
    """Each cell's thing as a box of the source, by the cell's place: `cells_of` undone."""
    width, height = seen_size(view.size)
    cols, rows = width // CELL, height // CELL
    region = view.region
    sx, sy = region.width / cols, region.height / rows
    found = {}
    for place in np.flatnonzero(cells.shape != NONE).tolist():
        row, col = divmod(place, cols)
        left, top, right, bottom = cells.sides[place].tolist()
        found[place] = Box(
            region.x0 + (col + 0.5 - left) * sx,
            region.y0 + (row + 0.5 - top) * sy,
            region.x0 + (col + 0.5 + right) * sx,
            region.y0 + (row + 0.5 + bottom) * sy,
        )
    return found


def question_of(scene: Scene, image: Image.Image) -> tuple[list[Message], View]:
    """How a conversation about the first thing's mark begins, and the first view of the picture."""
    view, thing = first_view(image, RESOLUTION), scene.things[0]
    messages = _said(_sample(image, _asks_mark(thing)), view.observation, (), CLEAR, thing)
    return messages[:2], view


def _in_cells(box: Box, view: Observation, grid: Size) -> tuple[float, float, float, float]:
    """A box of the source in cells of a view."""
    region, (cols, rows) = view.region, grid
    sx, sy = cols / region.width, rows / region.height
    x0, y0, x1, y1 = box.as_list()
    return (
        (x0 - region.x0) * sx,
        (y0 - region.y0) * sy,
        (x1 - region.x0) * sx,
        (y1 - region.y0) * sy,
    )


def _asks_mark(thing: Thing) -> str:
    return f"Which mark is on the {thing.name}?"


def _sample(image: Image.Image, question: str) -> Sample:
    return Sample("scene#0", "scene", image, image.size, question)


def _said(
    sample: Sample,
    view: Observation,
    steps: tuple[FocusStep, ...],
    thought: str,
    thing: Thing,
    answer: str = "",
) -> list[Message]:
    """A path as the chat that it reads as; the answer is the thing's mark where none is given."""
    path = Trajectory(
        sample_id=sample.sample_id,
        resolution=RESOLUTION,
        rollout=0,
        view=view,
        steps=steps,
        final_thought=thought,
        answer=answer or MARKS[thing.mark],
        finish="answered",
        policy="drawn",
    )
    return render(sample, path, "cof-v2", FAMILY.frame(sample.size))
