"""A brain for the loopback server that plays every role as a good model would, with known flaws.

It writes questions about its own pictures (`flawed_pictures`), plans, reads, locates, objects and
summarises. With a set share, drawn for each question and each path, it does one thing wrong, and
notes it: what filters must catch is known exactly. Nothing depends on the order of requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES
from pipeline.agent.task_writer import CONTEXT_RESOLUTION
from pipeline.answers import matches
from pipeline.geometry import Box, Size
from pipeline.samples import rng_for
from pipeline.scenes.needles import Tag
from pipeline.views import View, crop_region, first_view
from tests.loopback.flawed_pictures import (
    SIZE,
    Scene,
    ground_of,
    pixels_of,
    shown_tags,
)
from tests.loopback.flawed_questions import (
    CORNERS,
    QUESTION_FLAWS,
    Asked,
    asked_in,
    misread,
    spoilt,
)

LOOKING_FLAWS = (
    *("elsewhere", "wrong_answer", "early_thought", "early_summary"),
    *("unseen_fact", "unseen_box", "unseen_place"),
)
"""Of paths that need a look."""
READING_FLAWS = ("wrong_answer", "needless")
"""Of paths that need none."""
INVENTED = (
    "Beside it stands a plate with the code K7XW.",
    "There are seventeen windows behind it.",
    'A poster next to it reads "Grand Opening".',
    "A turquoise van is parked beside it.",
)
"""What no picture shows."""
PLACED = "Before that I looked along the wall beside the door."
"""A place that is not there; no rule over words can know that."""

_SEEN = re.compile(r"view of (\d+) x (\d+)")
_SUMMED = re.compile(r"\nFinal answer: (.*?), because: ")


@dataclass
class Flawed:
    """Callable as a brain: a request's JSON in, the assistant's text out."""

    scenes: Sequence[Scene]
    budgets: Sequence[int]
    question_share: float = 0.3
    """Share of written questions with a flaw, as far as the picture has room for one."""
    path_share: float = 0.3
    slip_share: float = 0.0
    """Share of what it is asked as a reader or an auditor that it gets wrong, by bad luck."""
    seed: int = 0
    family: str = "qwen2.5-vl"
    questions: dict[tuple[str, str], str] = field(default_factory=dict)
    """Flaw of each written question, by picture and question; "" for none."""
    paths: dict[tuple[str, str, Size], str] = field(default_factory=dict)
    """Flaw of each path, by picture, question and size of the first view; "" for none."""

    def __post_init__(self) -> None:
        self._family = FAMILIES[self.family]
        self._by_ground = {scene.ground: scene for scene in self.scenes}
        self._by_code = {tag.code[:3]: scene for scene in self.scenes for tag in scene.tags}
        self._views: dict[str, tuple[Scene, View]] = {}
        lower = [b for b in self.budgets if b <= CONTEXT_RESOLUTION]
        for scene in self.scenes:
            image = scene.image
            for resolution in {*self.budgets, max(lower, default=min(self.budgets))}:
                view = first_view(image, resolution)
                sent = encoded(view.pixels, self._family).sha256
                # Pixels are not kept: of a whole picture everything is known.
                self._views[sent] = scene, View(view.observation, np.empty(0, np.uint8))

    def __call__(self, request: dict[str, Any]) -> str:
        texts, pictures = parts_of(request)
        last = texts[-1]
        if '"kind"' in last and len(pictures) == 2:
            return self._write(pictures)
        if '"supported"' in last:
            return self._object(last, pictures[0])
        if '"needed"' in last:
            return self._summarise(last)
        if '"faithful"' in last:
            return self._audit(last)
        if last.startswith("Find: "):
            return self._locate(last, pictures[0])
        if request["messages"][0]["role"] == "system":
            return self._plan(texts, pictures)
        seen = self._read(last, pictures)
        slips = seen != "" and self._slips(last, *map(_digest, pictures))
        return misread(seen) if slips else seen or "unclear"

    def _write(self, pictures: Sequence[bytes]) -> str:
        """A question about the tag in the middle of a crop, perhaps a flawed one."""
        scene, _ = self._views[_digest(pictures[0])]
        tag = _middle(scene, pixels_of(pictures[1]))
        if tag is None:
            return '{"question": null, "why": "There is nothing but ground."}'
        drafts = {name: draft for name in QUESTION_FLAWS if (draft := spoilt(name, scene, tag))}
        rng = rng_for(self.seed, "question", scene.name, tag.name)
        flaw = str(rng.choice(list(drafts))) if rng.random() < self.question_share else ""
        clean = (f"What is written on the {tag.name}?", tag.code, tag.name, "text")
        question, answer, thing, kind = drafts.get(flaw, clean)
        self.questions[scene.name, question] = flaw
        return json.dumps({"question": question, "answer": answer, "object": thing, "kind": kind})

    def _plan(self, texts: Sequence[str], pictures: Sequence[bytes]) -> str:
        """Look where it is needed, then answer; an objection changes nothing."""
        scene, view = self._views[_digest(pictures[0])]
        asked = asked_in("\n".join(texts[1:]))
        tags = scene.named(asked.what) if asked else []
        if asked is None or not tags:
            return _answer("I cannot find that.", "unknown")
        tag, size = tags[0], view.observation.size
        needed = _width(view, tag) < asked.needs_px
        flaw, key = self._flaw(scene, asked, size, needed), (scene.name, asked.text, size)
        self.paths.setdefault(key, "")
        if flaw in ("elsewhere", "wrong_answer", "early_thought", "needless"):
            self.paths[key] = flaw
        if len(pictures) == 1 and (needed or flaw == "needless"):
            thought = f"In this view of {size[0]} x {size[1]} pixels the {asked.what} is "
            thought += "too small to read" if needed else "easy to find"
            if flaw == "early_thought":
                thought += f"; it says {asked.answers(tag)}"
            box = _elsewhere(scene, tag) if flaw == "elsewhere" else tag.box
            return _zoom(f"{thought}, so I look closer.", self._written(box, view), asked.what)
        said = misread(asked.answers(tag)) if flaw == "wrong_answer" else asked.answers(tag)
        return _answer(f"The {asked.what} can be read: it says {said}.", said)

    def _flaw(self, scene: Scene, asked: Asked, size: Size, needed: bool) -> str:
        """The flaw of a path, "" for none."""
        rng = rng_for(self.seed, "path", scene.name, asked.text, *size)
        if rng.random() >= self.path_share:
            return ""
        return str(rng.choice(LOOKING_FLAWS if needed else READING_FLAWS))

    def _summarise(self, text: str) -> str:
        """All looks, their thoughts as they were, perhaps with something that nobody saw."""
        thoughts = re.findall(r"^\d+\. (.*)$", text, re.MULTILINE)
        reason, answer = text.partition(", because: ")[2].split("\n")[0], _SUMMED.search(text)
        said = [*thoughts, reason]
        seen, asked = _SEEN.search(said[0]), asked_in(text)
        scene = self._by_code.get(answer.group(1)[:3]) if answer else None
        if scene is not None and asked is not None and seen is not None and answer is not None:
            size = int(seen.group(1)), int(seen.group(2))
            tag = scene.named(asked.what)[0]
            needed = tag.box.width * size[0] / SIZE[0] < asked.needs_px
            flaw = self._flaw(scene, asked, size, needed)
            rng = rng_for(self.seed, "invented", scene.name, asked.text, *size)
            added = {
                "early_summary": f"It says {answer.group(1)}.",
                "unseen_fact": str(rng.choice(INVENTED)),
                "unseen_place": PLACED,
                "unseen_box": f"First I looked at {rng.integers(900, 990, 4).tolist()}.",
            }
            if flaw in added:
                place = 0 if flaw == "early_summary" else int(rng.integers(len(said)))
                said[place] += " " + added[flaw]
                self.paths[scene.name, asked.text, size] = flaw
        return json.dumps({"needed": list(range(1, len(thoughts) + 1)), "thoughts": said})

    def _audit(self, text: str) -> str:
        """Whether a summary has something of what is only ever invented."""
        notes, _, summary = text.partition("\nSummary:")
        faithful = not any(s in summary and s not in notes for s in (*INVENTED, PLACED))
        faithful = faithful != self._slips(text)
        return json.dumps({"faithful": faithful, "what": "" if faithful else "an invention"})

    def _slips(self, *keys: str) -> bool:
        """Whether it gets this request wrong."""
        return rng_for(self.seed, "slip", *keys).random() < self.slip_share

    def _object(self, text: str, picture: bytes) -> str:
        """Supported where the picture shows the answer."""
        answer = re.search(r'answered "(.*?)" from this', text)
        seen = self._read(text, [picture])
        right = answer is not None and seen != "" and matches(seen, answer.group(1))
        advice = "" if right else "Look at the thing itself, closer."
        return json.dumps({"supported": right, "advice": advice})

    def _locate(self, text: str, picture: bytes) -> str:
        """Boxes of all tags that a phrase fits, in a whole picture."""
        scene, view = self._views[_digest(picture)]
        found = scene.named(text.removeprefix("Find: ").partition(". Reply")[0])
        return json.dumps([self._written(tag.box, view) for tag in found])

    def _read(self, text: str, pictures: Sequence[bytes]) -> str:
        """The answer from one picture, or from none; "" where it cannot be told."""
        asked = asked_in(text)
        if asked is None:
            return ""
        if not pictures:
            shapes = [shape for shape in CORNERS if shape in asked.what.split()]
            return CORNERS[shapes[0]] if asked.form == "corners" and shapes else ""
        if (known := self._views.get(_digest(pictures[0]))) is not None:
            scene, view = known
            widths = {tag: _width(view, tag) for tag in scene.tags}
        else:
            pixels = pixels_of(pictures[0])
            scene = self._by_ground.get(ground_of(pixels), Scene("", b"", (), (0, 0, 0)))
            widths = {tag: box.width for tag, box in shown_tags(scene, pixels).items()}
        meant = [tag for tag in scene.named(asked.what) if widths.get(tag, 0) >= asked.needs_px]
        return asked.answers(meant[0]) if len(meant) == 1 else ""

    def _written(self, box: Box, view: View) -> list[float]:
        size = view.observation.size
        return list(self._family.written(Box(*view.to_view(box)).clip(size), size))


def parts_of(request: Mapping[str, Any]) -> tuple[list[str], list[bytes]]:
    """Texts of a request, and its pictures as they were sent."""
    texts, pictures = list[str](), list[bytes]()
    for message in request["messages"]:
        content: Any = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                pictures.append(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
    return texts, pictures


def _middle(scene: Scene, pixels: np.ndarray) -> Tag | None:
    """The tag that a crop is about: whole, large, and over its middle."""
    height, width = pixels.shape[:2]
    for tag, box in shown_tags(scene, pixels).items():
        inside = box.x0 < width / 2 < box.x1 and box.y0 < height / 2 < box.y1
        if inside and box.width >= 0.4 * min(width, height):
            return tag
    return None


def _elsewhere(scene: Scene, tag: Tag) -> Box:
    """A box of the tag's size whose look shows nothing of any tag."""
    side = tag.box.width
    rng = rng_for(0, "elsewhere", scene.name, tag.name)
    while True:
        x, y = (int(rng.integers(0, int(limit - side))) for limit in SIZE)
        box = Box(x, y, x + side, y + side)
        look = crop_region(box.enlarge(1.2, SIZE), SIZE)
        if not any(look.intersection(other.box) for other in scene.tags):
            return box


def _width(view: View, tag: Tag) -> float:
    """Of a tag in a view, pixels."""
    x0, _, x1, _ = view.to_view(tag.box)
    return x1 - x0


def _zoom(thought: str, box: Sequence[float], label: str) -> str:
    call = {"name": "zoom", "arguments": {"box": list(box), "label": label}}
    return f"<think> {thought} </think>\n<tool_call>\n{json.dumps(call)}\n</tool_call>"


def _answer(thought: str, answer: str) -> str:
    return f"<think> {thought} </think>\n<answer> {answer} </answer>"


def _digest(jpeg: bytes) -> str:
    return hashlib.sha256(jpeg).hexdigest()
