"""Chain-of-Focus: the released SFT data (`cof_sft_data.json` and `images.zip`), and its v1 turns.

Facts: xtong-zhang/Chain-of-Focus `configs/dataset_info.json` (ShareGPT with `role`/`content`,
columns `messages` and `images`); `images[0]` is the picture and `images[k]` the k-th crop, relative
to `images/`; a row with one picture answers directly. Boxes are pixels of the smart-resized picture
(112² to 3840² pixels), never of a crop. The tool enlarges a box by 1.5, doubles the crop and
smart-resizes it within the same limits. There is no ground truth in this file.
"""

from __future__ import annotations

from pipeline.errors import GrammarError
from pipeline.geometry import MAX_PIXELS, MIN_PIXELS
from pipeline.grammar import parse
from pipeline.sources.published.chats import (
    Course,
    chat_of,
    check_pictures,
    course_of,
    instructions_of,
    opening_of,
)
from pipeline.sources.published.records import Layout, Look, Path, Record, unreadable
from pipeline.turns import Mark, Turn

MARK = Mark.ZOOMIN.value
V1 = (MARK, "<|box_start|>")
"""What only a turn of v1 holds."""


def read(record: Record) -> Path:
    """The path of one record; raises `BadImage`."""
    chat = chat_of(record.get("messages"))
    question, options, rest = opening_of(chat)
    spoken = [said.text for said in rest if said.role == "assistant"]
    if len(spoken) == 1 and any(mark in spoken[0] for mark in V1):
        course = _course_v1(spoken[0])
    else:
        course = course_of(rest, lambda text: parse(text, "cof-v2"))
    return check_pictures(
        Path(
            question=question,
            options=options,
            answer=course.final.answer or "",
            pictures=tuple(map(_names, record.get("images") or ())),
            looks=course.looks,
            final_thought=course.final.thought,
            final_text=course.text,
            instructions=instructions_of(chat),
            coordinates="view",
        )
    )


def _recognises(record: Record) -> bool:
    messages, images = record.get("messages"), record.get("images")
    return (
        isinstance(messages, list)
        and isinstance(images, list)
        and not {"prompt", "conversations"} & record.keys()
    )


def _names(cell: object) -> object:
    """A picture's cell: encoded bytes as they are, a name with the folder it may lie in."""
    name = cell.get("image", cell.get("path")) if isinstance(cell, dict) else cell
    if isinstance(cell, dict) and cell.get("bytes"):
        return cell
    return (name, f"images/{name}") if isinstance(name, str) else cell


def _course_v1(text: str) -> Course:
    """The looks of a v1 turn: one for each zoom mark, over all boxes named since the last one."""
    try:
        turn = parse(text, "cof-v1")
    except GrammarError as error:
        raise unreadable("not_parsed", str(error)) from error
    looks: list[Look] = []
    words: list[str] = []
    boxes: list[tuple[float, ...]] = []
    for segment in turn.segments or (turn.thought,):
        if isinstance(segment, str):
            words.append(segment.strip())
        elif isinstance(segment, Mark):
            looks.append(_named(words, boxes, zoomed=True))
            words, boxes = [], []
        else:
            boxes.append(segment)
    if boxes:
        looks.append(_named(words, boxes, zoomed=False))
        words = []
    final = Turn(" ".join(filter(None, words)), answer=turn.answer)
    return Course(tuple(looks), final, text)


def _named(words: list[str], boxes: list[tuple[float, ...]], *, zoomed: bool) -> Look:
    thought = " ".join(word for word in words if word)
    return Look(thought, tuple(boxes), (zoomed,) * len(boxes))


LAYOUT = Layout(
    name="chain-of-focus",
    about="records of `messages` and `images` (ShareGPT)",
    recognises=_recognises,
    read=read,
    tools=("enlarge", "crop"),
    least_pixels=MIN_PIXELS,
    most_pixels=MAX_PIXELS,
)
