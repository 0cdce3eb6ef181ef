"""One trajectory as a single picture: what was looked at, and beside it what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont

from pipeline.geometry import Box, Size
from pipeline.report.pictures import crop_at
from pipeline.report.rows import Look, Question
from pipeline.trajectory import FocusStep, Observation

Rgb = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER: Rgb = (251, 250, 247)
INK: Rgb = (28, 29, 31)
QUIET: Rgb = (109, 108, 104)
LOOK: Rgb = (232, 74, 44)
TARGET: Rgb = (34, 201, 122)
WHITE: Rgb = (255, 255, 255)

PAD, GAP = 40, 28
"""Margin around everything, and space between its parts, in pixels."""
PICTURE_SHARE = 0.6
"""Share of the width that the picture takes."""
CROP_HEIGHT_PX = 230


@dataclass(slots=True)
class _Pen:
    """Where the next thing in the right column goes; draws nothing while it only measures."""

    canvas: Image.Image
    x: int
    y: int
    width: int

    def text(self, words: str, size: int, ink: Rgb, indent: int = 0) -> None:
        """A paragraph, wrapped."""
        draw, font = ImageDraw.Draw(self.canvas), _font(size)
        for line in _wrapped(words, font, self.width - indent):
            draw.text((self.x + indent, self.y), line, ink, font)
            self.y += round(size * 1.35)

    def image(self, image: Image.Image, indent: int) -> None:
        self.canvas.paste(image, (self.x + indent, self.y))
        self.y += image.height

    def disc(self, number: int, radius: int) -> None:
        _disc(self.canvas, number, (self.x + radius, self.y + radius), radius)


def question_picture(question: Question, image: Image.Image, *, width: int = 1600) -> Image.Image:
    """The path with the most looks of a published question, as `trajectory_picture` draws it."""
    path = max(question.paths, key=lambda path: path.num_zooms)
    return trajectory_picture(
        image,
        [_as_step(list(looks)) for _, looks in groupby(path.looks, key=lambda look: look.step)],
        question=question.question,
        answer=path.answer,
        final_thought=path.final_thought,
        view=path.view,
        width=width,
    )


def _as_step(looks: Sequence[Look]) -> FocusStep:
    """A step from its rows; the region is left to be derived from the box."""
    last = looks[-1]
    seen = None if last.view is None else Observation(last.box, last.view)
    zoomed = tuple(look.zoomed for look in looks)
    boxes = tuple(look.box for look in looks)
    return FocusStep(last.thought, boxes, zoomed, tool=last.tool, observation=seen)


def trajectory_picture(
    image: Image.Image,
    steps: Sequence[FocusStep],
    *,
    question: str,
    answer: str,
    final_thought: str = "",
    target_boxes: Sequence[Box] = (),
    view: Size | None = None,
    width: int = 1600,
) -> Image.Image:
    """The picture with numbered boxes; beside it each thought with the crop it brought; the answer.

    `image` is the source picture, boxes are in its pixels; a step's crop is derived again from its
    last zoomed box and its observation. With `view` the picture is as sharp as that first view
    was. Returns RGB, `width` pixels wide.
    """
    left = round((width - 2 * PAD - GAP) * PICTURE_SHARE)
    seen = image if view is None else image.resize(view, Image.Resampling.LANCZOS)
    shown = _marked(seen, image.size, steps, target_boxes, left)
    column = width - 2 * PAD - GAP - left
    story = (image, steps, question, answer, final_thought)
    measured = _tell(_Pen(Image.new("RGB", (1, 1)), 0, 0, column), *story)
    height = max(shown.height, measured) + 2 * PAD
    canvas = Image.new("RGB", (width, height), PAPER)
    canvas.paste(shown, (PAD, PAD))
    _tell(_Pen(canvas, PAD + left + GAP, PAD, column), *story)
    return canvas


def _tell(
    pen: _Pen,
    image: Image.Image,
    steps: Sequence[FocusStep],
    question: str,
    answer: str,
    final_thought: str,
) -> int:
    """Write the right column; returns the height it takes."""
    start, indent = pen.y, 44
    pen.text(question, 27, INK)
    pen.y += GAP
    for number, step in enumerate(steps, 1):
        pen.disc(number, 15)
        pen.text(step.thought, 20, INK, indent)
        crop = _crop(image, step, (pen.width - indent, CROP_HEIGHT_PX))
        if crop is not None:
            pen.y += 10
            pen.image(crop, indent)
        pen.y += GAP
    if final_thought:
        pen.text(final_thought, 20, INK, indent)
        pen.y += 8
    pen.text(answer, 30, LOOK, indent)
    return pen.y - start


def _marked(
    seen: Image.Image,
    source: Size,
    steps: Sequence[FocusStep],
    targets: Sequence[Box],
    width: int,
) -> Image.Image:
    """The picture, in its source's shape, at `width` pixels with its boxes drawn."""
    scale = width / source[0]
    size = (width, max(1, round(source[1] * scale)))
    shown = seen.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    zoomed = [
        (number, box)
        for number, step in enumerate(steps, 1)
        for box, was in zip(step.boxes, step.zoomed, strict=True)
        if was
    ]
    for _, box in zoomed:
        _outline(shown, box, scale, LOOK)
    for box in targets:
        _outline(shown, box, scale, TARGET)
    for number, box in zoomed:
        _disc(shown, number, _beside(box, scale, size, 17), 17)
    return shown


def _outline(shown: Image.Image, box: Box, scale: float, ink: Rgb) -> None:
    """A box with a light rim, so that it shows on any ground."""
    x0, y0, x1, y1 = (round(side * scale) for side in box.as_list())
    draw = ImageDraw.Draw(shown)
    draw.rectangle((x0 - 3, y0 - 3, x1 + 2, y1 + 2), outline=WHITE, width=1)
    draw.rectangle((x0 - 2, y0 - 2, x1 + 1, y1 + 1), outline=ink, width=3)


def _beside(box: Box, scale: float, size: Size, radius: int) -> tuple[int, int]:
    """Where a disc goes: off the box's upper left corner, but inside the picture."""
    x = min(max(round(box.x0 * scale) - radius, radius), size[0] - radius)
    y = min(max(round(box.y0 * scale) - radius, radius), size[1] - radius)
    return x, y


def _disc(canvas: Image.Image, number: int, centre: tuple[int, int], radius: int) -> None:
    """A numbered disc, drawn four times as large and shrunk so that its edge is smooth."""
    large, side = 4 * radius, 8 * radius
    disc = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(disc)
    draw.ellipse((0, 0, side - 1, side - 1), fill=LOOK, outline=WHITE, width=8)
    draw.text((large, large), str(number), WHITE, _font(round(large * 1.2)), anchor="mm")
    disc = disc.resize((2 * radius, 2 * radius), Image.Resampling.LANCZOS)
    canvas.paste(disc, (centre[0] - radius, centre[1] - radius), disc)


def _crop(image: Image.Image, step: FocusStep, most: Size) -> Image.Image | None:
    """What the step's last zoomed box showed, fitted into `most`; None where nothing was zoomed."""
    zoomed = [box for box, was in zip(step.boxes, step.zoomed, strict=True) if was]
    if not zoomed or step.observation is None:
        return None
    crop = crop_at(image.convert("RGB"), zoomed[-1], step.observation.size, step.tool)
    scale = min(most[0] / crop.width, most[1] / crop.height)
    size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    return crop.resize(size, Image.Resampling.LANCZOS)


def _wrapped(words: str, font: Font, width: int) -> list[str]:
    """Lines that fit; a single word that does not fit stays on its own line."""
    lines: list[str] = []
    for word in words.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
