"""Visual-CoT: its annotations (JSON lines) and the conversations made of them (`viscot_363k.json`).

Facts: deepcs233/Visual-CoT `tools/convert_data_to_llava_format.py` and `llava/eval/
model_cot_loader.py`; the fields of the annotations as its users read them. An annotation has
`question, answer, full_answer, image, width, height, bboxs, dataset, split` and, in `cot_with_
detailed_reasoning_steps`, `thought`; `bboxs` are XYXY pixels of the picture of that size, and what
is looked at is the box around all of them. A conversation is a question with an instruction, the
box in fractions of the picture padded to a square (three decimals), a turn that shows the crop, and
the answer; `image` is the picture's name and the same name with `###[x0, y0, x1, y1]`. Pictures lie
in `cot/DATASET/`, those of `textcap` in `cot/textvqa/`. The crop is a square about the box, 224
pixels at least, and every view is 336 x 336.

These paths were annotated, not walked by a model: the answer is the target.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pipeline.errors import InvalidBox
from pipeline.geometry import four_numbers
from pipeline.sources.published.chats import chat_of
from pipeline.sources.published.records import Layout, Look, Path, Record, unreadable

VIEW = (336, 336)
_ASKING = re.compile(
    r"\s*Please (?:think step by step and )?provide the bounding box\b.*", re.DOTALL
)
_STORED_ELSEWHERE = {"textcap": "textvqa"}
_HALF_DECIMAL = 0.001
"""A fraction of three decimals may pass an edge that is not round by so much."""


def read(record: Record) -> Path:
    """The path of one record; raises `BadImage`."""
    return _annotation(record) if "bboxs" in record else _conversation(record)


def _recognises(record: Record) -> bool:
    annotated = {"question", "answer", "image", "bboxs"} <= record.keys()
    image = record.get("image")
    talked = isinstance(image, list) and any("###" in name for name in map(str, image))
    return annotated or ("conversations" in record and talked)


def _annotation(record: Record) -> Path:
    question, answer = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise unreadable("not_parsed", "there is no question")
    boxes = _boxes(record.get("bboxs"))
    dataset = str(record.get("dataset") or "")
    width, height = record.get("width"), record.get("height")
    told = all(isinstance(side, int) and side > 0 for side in (width, height))
    thought = record.get("thought")
    return Path(
        question=question.strip(),
        answer=_answer(answer),
        target=_answer(answer),
        target_boxes=boxes,
        pictures=(_names(record.get("image"), dataset),),
        looks=(_look(_around(boxes), thought.strip() if isinstance(thought, str) else ""),),
        coordinates="source",
        size=(int(str(width)), int(str(height))) if told else None,
        slack=1.0,
        task=dataset,
    )


def _conversation(record: Record) -> Path:
    chat = [said for said in chat_of(record.get("conversations")) if said.role != "system"]
    if [said.role for said in chat] != ["user", "assistant", "user", "assistant"]:
        raise unreadable("not_parsed", "not a question, a box, a crop and an answer")
    question = _ASKING.sub("", chat[0].text).strip()
    if not question:
        raise unreadable("not_parsed", "the question is empty")
    images = record.get("image")
    name = images[0] if isinstance(images, list) and images else images
    dataset = str(record.get("dataset") or "")
    try:
        box = json.loads(chat[1].text.replace(" .", ""))
    except (ValueError, RecursionError) as error:
        raise unreadable("bad_box", f"the box is {chat[1].text[:80]!r}") from error
    (box,) = _boxes([box])
    answer = _answer(chat[3].text)
    return Path(
        question=question,
        answer=answer,
        target=answer,
        target_boxes=(box,),
        pictures=(_names(name, dataset),),
        looks=(_look(box, "", chat[1].text),),
        final_text=chat[3].text,
        coordinates="unit-padded",
        slack=_HALF_DECIMAL,
        task=dataset,
    )


def _look(box: Sequence[float], thought: str, text: str = "") -> Look:
    return Look(thought, (box,), (True,), text=text)


def _answer(value: Any) -> str:
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if not text:
        raise unreadable("answer_missing", "the answer is empty")
    return text


def _boxes(values: Any) -> tuple[Sequence[float], ...]:
    if not isinstance(values, list | tuple) or not values:
        raise unreadable("bad_box", "there is no box")
    try:
        return tuple(four_numbers(value) for value in values)
    except InvalidBox as error:
        raise unreadable("bad_box", str(error)) from error


def _around(boxes: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The box around all boxes: what is looked at."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _names(name: Any, dataset: str) -> Any:
    """Where a picture may lie."""
    if not isinstance(name, str):
        return name
    bare = name.split("###")[0]
    folder = _STORED_ELSEWHERE.get(dataset, dataset)
    below = (f"{folder}/{bare}", f"cot/{folder}/{bare}") if folder else ()
    return (bare, *below, f"images/{bare}")


LAYOUT = Layout(
    name="visual-cot",
    about="JSON lines with `bboxs`, or conversations whose second `image` has `###[…]`",
    recognises=_recognises,
    read=read,
    tools=("square",),
    view=VIEW,
)
