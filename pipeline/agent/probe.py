"""Finds out by asking which coordinates a model speaks.

A few drawn pictures, tags at known places, one question each; every reply is read under every
convention, and the convention under which the boxes lie on the tags is the one. It knows nothing
of how a model is reached.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL import Image

from pipeline.agent.chat import ChatModel, Request, Said
from pipeline.agent.encoding import picture_of
from pipeline.agent.families import FAMILIES, Order, as_xyxy
from pipeline.errors import InvalidBox
from pipeline.geometry import Box, Frame, FrameKind, Size
from pipeline.scenes.needles import Tag
from pipeline.scenes.tags import draw_tag

Numbers = tuple[float, float, float, float]

GROUND = (236, 234, 228)
"""Paper: no tag has its colour."""
LEAST_IOU = 0.4
"""Below this the boxes do not lie on the tags, whatever the convention."""
LEAST_LEAD = 0.15
"""By which the best mean IoU must pass the next."""
LEAST_USABLE = 0.5
"""Of the questions asked."""

PICTURES: dict[Size, tuple[Tag, ...]] = {
    (644, 448): (
        Tag("star", "red", "", Box(470, 20, 610, 160)),
        Tag("circle", "blue", "", Box(30, 290, 160, 420)),
        Tag("square", "green", "", Box(330, 310, 450, 430)),
    ),
    (448, 728): (
        Tag("triangle", "orange", "", Box(300, 560, 430, 690)),
        Tag("hexagon", "purple", "", Box(20, 470, 150, 600)),
        Tag("diamond", "cyan", "", Box(310, 40, 430, 160)),
    ),
}
"""What is drawn, by size: neither square nor at the centre, so that conventions differ, and sides
multiples of 28, so that the pixels that were sent are those that Qwen2.5-VL sees."""

ASKED = (
    "Find the {name} in this picture. Reply with one line of JSON and nothing else: an object whose"
    ' only key is "bbox_2d" and whose value is the list of the four numbers of its bounding box.'
)


@dataclass(frozen=True, slots=True)
class Convention:
    """How four numbers name a box."""

    kind: FrameKind
    order: Order

    def iou(self, numbers: Sequence[float], truth: Box, size: Size) -> float:
        """IoU of `truth` and the box that the numbers name on a picture of `size`, in [0, 1]."""
        frame = Frame(self.kind, size, size if self.kind == "pixels" else None)
        sx, sy, dx, dy = frame.axes()
        try:
            x0, y0, x1, y1 = as_xyxy(numbers, self.order)
            box = Box((x0 - dx) / sx, (y0 - dy) / sy, (x1 - dx) / sx, (y1 - dy) / sy)
        except InvalidBox:
            return 0.0
        return box.iou(truth)

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that speak it."""
        return tuple(
            f.name for f in FAMILIES.values() if (f.kind, f.order) == (self.kind, self.order)
        )

    def __str__(self) -> str:
        first = "left edge first" if self.order == "xyxy" else "top edge first"
        return f"{_WORDS[self.kind]}, {first}"


_WORDS: dict[FrameKind, str] = {
    "pixels": "pixels of the picture it sees",
    "thousand": "0 to 1000 on each axis",
    "unit": "0 to 1 on each axis",
    "unit-padded": "0 to 1 on the padded square",
}
_ORDERS: tuple[Order, ...] = ("xyxy", "yxyx")

CONVENTIONS = tuple(Convention(kind, order) for kind in _WORDS for order in _ORDERS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the replies say."""

    scores: tuple[tuple[Convention, float], ...]
    """Mean IoU over the usable replies under every convention, best first."""
    asked: int
    usable: int
    """Replies that held four numbers."""

    @property
    def best(self) -> Convention:
        return self.scores[0][0]

    @property
    def iou(self) -> float:
        """Mean IoU under the best convention."""
        return self.scores[0][1]

    @property
    def lead(self) -> float:
        """By how much it passes the next."""
        return self.iou - self.scores[1][1]

    @property
    def confident(self) -> bool:
        """Whether one convention is clearly the right one."""
        enough = self.usable >= LEAST_USABLE * self.asked
        return enough and self.iou >= LEAST_IOU and self.lead >= LEAST_LEAD


@dataclass(frozen=True, slots=True)
class Probing:
    """One question of the probe and its truth."""

    request: Request
    tag: Tag
    size: Size


async def probe(model: ChatModel) -> Verdict:
    """Ask every question, one at a time; raises `ModelError` when the model cannot be reached."""
    questions = probings()
    replies = [(q, numbers_in((await model.reply(q.request)).text)) for q in questions]
    usable = [(q, numbers) for q, numbers in replies if numbers is not None]
    scores = {
        convention: fmean([convention.iou(n, q.tag.box, q.size) for q, n in usable] or [0.0])
        for convention in CONVENTIONS
    }
    ranked = sorted(scores.items(), key=lambda score: -score[1])
    return Verdict(tuple(ranked), len(questions), len(usable))


def probings() -> list[Probing]:
    """The questions, the same on every call."""
    asked = []
    for size, tags in PICTURES.items():
        picture = picture_of(drawn(size, tags))
        for tag in tags:
            said = Said("user", (picture, ASKED.format(name=tag.name)))
            asked.append(Probing(Request("locate", (said,)), tag, size))
    return asked


def drawn(size: Size, tags: Sequence[Tag]) -> Image.Image:
    """The tags on plain paper, RGB."""
    paper = Image.new("RGB", size, GROUND)
    for tag in tags:
        shape = draw_tag(tag.shape, tag.color, tag.code, int(tag.box.width))
        paper.paste(shape, (int(tag.box.x0), int(tag.box.y0)), shape)
    return paper


_NUMBER = r"(?<![\w.])[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?!\w|\.\d|\s*%)"
_BETWEEN = r"[\s,;()\[\]]+"
_LISTED = re.compile(rf"[(\[]\s*({_NUMBER}(?:{_BETWEEN}{_NUMBER}){{3}})\s*[)\]]")
_ANY = re.compile(_NUMBER)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


def numbers_in(text: str) -> Numbers | None:
    """The four numbers of a reply, or None: the last list of four, else the only four there are.

    `[1, 2, 3, 4]`, `(1,2),(3,4)`, `[[1, 2], [3, 4]]` and `{"x1": 1, …}` are all read, in JSON, in
    special tokens or in a sentence; what stands between <think> tags is not.
    """
    text = _THOUGHT.sub(" ", text)
    lists = _LISTED.findall(text)
    found = [float(word) for word in _ANY.findall(lists[-1] if lists else text)]
    if len(found) != 4:
        return None
    a, b, c, d = found
    return a, b, c, d
