"""DeepEyes: rows of its training Parquet, and the result files of its evaluation.

Facts: Visual-Agent/DeepEyes `verl/workers/agent/envs/mm_process_engine/create_train_dataset.py`
(columns `data_source, prompt, images, ability, env_name, reward_model{style, ground_truth},
extra_info{split, index, answer, question}`; `prompt` is a system and a user message, `images` hold
encoded bytes) and `eval/eval_vstar.py` (JSON lines of `image, question, answer, pred_ans,
pred_output, status`; `pred_output` is the chat). `bbox_2d` is in pixels of the picture as it is;
the crop is cut from it plain and smart-resized (4·28² to 16384·28² pixels), and the tool cuts a
box to the picture. Replies end before `</tool_call>` where that was a stop word.

A training row is a question with its answer and no path: `no_path`, unless turns of the assistant
were added to it. Result files are paths.
"""

from __future__ import annotations

from typing import Any

from pipeline.geometry import FACTOR
from pipeline.grammar import parse
from pipeline.sources.published.chats import (
    chat_of,
    check_pictures,
    course_of,
    instructions_of,
    opening_of,
)
from pipeline.sources.published.records import ANY, Layout, Path, Record
from pipeline.turns import Turn


def read(record: Record) -> Path:
    """The path of one record; raises `BadImage`."""
    results = "pred_output" in record
    chat = chat_of(record["pred_output"] if results else record.get("prompt"))
    question, options, rest = opening_of(chat)
    course = course_of(rest, _turn)
    return check_pictures(
        Path(
            question=question,
            options=options,
            answer=course.final.answer or "",
            pictures=_names(record["image"]) if results else tuple(record.get("images") or ()),
            looks=course.looks,
            final_thought=course.final.thought,
            final_text=course.text,
            instructions=instructions_of(chat),
            target=_target(record),
            slack=ANY,
            task=str(record.get("data_source") or ""),
        )
    )


def _recognises(record: Record) -> bool:
    known = record.keys()
    trains = "images" in known and "prompt" in known and "reward_model" in known
    return trains or {"image", "question", "answer", "pred_output"} <= known


def _turn(text: str) -> Turn:
    """A reply as a turn, its last tag closed where a stop word took the end away."""
    if text.rfind("<tool_call>") > text.rfind("</tool_call>"):
        text += "</tool_call>"
    return parse(text, "cof-v2")


def _names(name: Any) -> tuple[Any, ...]:
    """Where a benchmark's picture may lie: beside, or in a folder of V*Bench."""
    if not isinstance(name, str):
        return (name,)
    return ((name, f"direct_attributes/{name}", f"relative_position/{name}", f"images/{name}"),)


def _target(record: Record) -> str | None:
    truth = record.get("reward_model")
    answer = truth.get("ground_truth") if isinstance(truth, dict) else record.get("answer")
    return str(answer) if answer not in (None, "") else None


LAYOUT = Layout(
    name="deepeyes",
    about="Parquet with `prompt`, `images` and `reward_model`, or JSON lines with `pred_output`",
    recognises=_recognises,
    read=read,
    tools=("crop",),
    least_pixels=4 * FACTOR * FACTOR,
    most_pixels=16384 * FACTOR * FACTOR,
)
