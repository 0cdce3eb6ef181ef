"""Small published datasets in each layout, drawn and written on the spot."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.geometry import MAX_PIXELS, MIN_PIXELS, Box, Size, smart_resize, zoom
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene

SIZE = (1000, 700)
"""(width, height) of the pictures: no multiple of 28, so views differ from sources."""
TOLD = "\nWrite <think>…</think> and then <tool_call>…</tool_call> or <answer>…</answer>."
"""An instruction behind a question, as datasets have one."""

Values = Sequence[float]
Record = dict[str, Any]


@cache
def picture(number: int = 0, size: Size = SIZE) -> Image.Image:
    """A drawn scene, shared by all who ask for it."""
    return Image.fromarray(scene(rng_for(31, "published", number), size).image)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def resized(image: Image.Image, least: int = MIN_PIXELS, most: int = MAX_PIXELS) -> Image.Image:
    """The picture smart-resized, as a model sees it."""
    rows, columns = smart_resize(image.height, image.width, min_pixels=least, max_pixels=most)
    return image.resize((columns, rows), Image.Resampling.LANCZOS)


def turn(thought: str, *boxes: Values, label: str = "") -> str:
    """A turn that looks, in the text of Chain-of-Focus and DeepEyes."""
    more = {"label": label} if label else {}
    calls = [
        json.dumps({"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(b)} | more})
        for b in boxes
    ]
    body = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)
    return f"<think> {thought} </think>\n{body}"


def answer(thought: str, text: str) -> str:
    """The turn that answers."""
    return f"<think> {thought} </think>\n<answer> {text} </answer>"


def focus_record(
    question: str, turns: Sequence[str], images: Sequence[Any], told: str = TOLD
) -> Record:
    """A record as Chain-of-Focus releases them."""
    messages = [
        {"role": "system", "content": "You have a tool."},
        {"role": "user", "content": f"<image> Question: {question}{told}"},
    ]
    for text in turns[:-1]:
        messages += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": f"<image>{told}"},
        ]
    messages.append({"role": "assistant", "content": turns[-1]})
    return {"messages": messages, "images": list(images)}


FOCUS_BOXES: tuple[Values, ...] = ((100, 120, 420, 400), (610, 300, 820, 520))
"""In pixels of the picture smart-resized to 1008 x 700."""
LETTERED = "What stands left?\n(A) a cup\n(B) a lamp"


def chain_of_focus(root: Path, *, zipped: bool = False, plain_crops: bool = False) -> Path:
    """Two records: one with two looks, one that answers at once; pictures in `images/`."""
    image = picture(1)
    seen = resized(image)
    enlarge = 1.0 if plain_crops else 1.5
    crops = [zoom(seen, Box(*values), enlarge=enlarge) for values in FOCUS_BOXES]
    files = {
        "images/7/0.jpg": png(image),
        "images/7/1.jpg": png(crops[0]),
        "images/7/2.jpg": png(crops[1]),
        "images/8/0.jpg": png(picture(2)),
    }
    records = [
        focus_record(
            LETTERED,
            [
                turn("The left side first.", FOCUS_BOXES[0], label="the left side"),
                turn("Not there.", FOCUS_BOXES[1]),
                answer("It is a lamp.", "B"),
            ],
            ["7/0.jpg", "7/1.jpg", "./7/2.jpg"],
        ),
        focus_record("What colour is it?", [answer("All of it is red.", "Red")], ["8/0.jpg"]),
    ]
    _write(root, files, zipped=zipped)
    (root / "dataset_info.json").write_text(json.dumps({"cof": {"file_name": "x"}}))
    (root / "cof_sft_data.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    return root


DEEPEYES_BOX: Values = (640, 200, 1004, 500)
"""It passes the right edge of a picture of 1000 pixels: the tool cuts it there."""


def deepeyes_results(root: Path) -> Path:
    """A result file of its evaluation: one right answer with a look, one wrong one."""
    _write(root, {"direct_attributes/sa_1.jpg": png(picture(3))})
    asked = "Question: Which colour?\nOptions: \nA. red\nB. green\n"
    look = turn("Closer.", DEEPEYES_BOX).removesuffix("\n</tool_call>")  # a stop word took it
    lines = []
    for said in ("A. red", "B"):
        chat = [
            {"role": "system", "content": "You have a tool."},
            {"role": "user", "content": [_shown(), {"type": "text", "text": asked + "\n" + TOLD}]},
            {"role": "assistant", "content": look},
            {"role": "user", "content": [_shown(), {"type": "text", "text": TOLD}]},
            {"role": "assistant", "content": answer("Seen.", said)},
        ]
        lines.append(
            {"image": "sa_1.jpg", "question": "Which colour?", "answer": "red", "pred_ans": said}
            | {"pred_output": chat, "status": "success"}
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "result_direct_attributes.jsonl").write_text(text, encoding="utf-8")
    return root


def deepeyes_rows(root: Path, *, answered: bool) -> Path:
    """Its training Parquet: questions without a path, or with the turns of a rollout added."""
    rows = []
    for number in range(5):
        prompt = [
            {"role": "system", "content": "You have a tool."},
            {"role": "user", "content": f"<image>\nQuestion:\nWhich one, {number}?{TOLD}"},
        ]
        if answered:
            prompt.append({"role": "assistant", "content": answer("Clear.", str(number % 2))})
        rows.append(
            {
                "data_source": "vstar",
                "prompt": prompt,
                "images": [{"bytes": png(picture(number, (300, 200))), "path": "a.jpg"}],
                "ability": "vl",
                "env_name": "visual_toolbox_v2",
                "reward_model": {"style": "rule", "ground_truth": "1"},
                "extra_info": {"split": "train", "index": str(number), "answer": "1"},
            }
        )
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "data_0.1.2.parquet", row_group_size=2)
    return root


MINI_BOX: Values = (0.25, 0.2, 0.85, 0.8)
MINI_INNER: Values = (0.5, 0.25, 0.9, 0.75)
"""On the crop of `MINI_BOX`."""


def mini_o3(root: Path, *, parquet: bool) -> Path:
    """Two records: a look, a look into its crop and an answer; and one that ends with a look."""
    image = picture(4)
    first = image.crop((250, 140, 850, 560))
    second = first.crop((300, 105, 540, 315))

    def grounding(thought: str, box: Values, source: str) -> str:
        call = json.dumps({"bbox_2d": list(box), "source": source})
        return f"<think>{thought}</think><grounding>{call}</grounding>"

    def observed(number: int) -> dict[str, str]:
        text = f"After Action {number}, the zoom-in image (Observation {number + 1}):\n<image>.\n"
        return {"from": "human", "value": text}

    chat = [
        {"from": "system", "value": "Ground, then answer."},
        {"from": "human", "value": "<image>\nQuestion: What is in the corner?"},
        {"from": "gpt", "value": grounding("The middle.", MINI_BOX, "original_image")},
        observed(0),
        {"from": "gpt", "value": grounding("Its right part.", MINI_INNER, "observation_1")},
        observed(1),
        {"from": "gpt", "value": "<think>A vase.</think><answer> vase </answer>"},
    ]
    pictures = [png(image), png(first), png(second)]
    names = ["original.png", "observation_1.png", "observation_2.png"]
    cut = [(chat, 3), (chat[:5], 2)]
    if not parquet:
        _write(root, {f"images/m_0/{n}": p for n, p in zip(names, pictures, strict=True)})
        records = [
            {"conversations": said, "images": [f"{root}/images/m_0/{n}" for n in names[:count]]}
            for said, count in cut
        ]
        (root / "Mini-o3-Coldstart.json").write_text(json.dumps(records), encoding="utf-8")
        return root
    rows = [
        {
            "images": [{"bytes": p, "path": None} for p in pictures[:count]],
            "image_names": names[:count],
            "conversations": json.dumps(said),
            "data_source": "visual_probe_train",
            "sample_index": 3,
            "rollout_index": 4,
        }
        for said, count in cut
    ]
    (root / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "data" / "train-00000.parquet")
    return root


COT_BOXES: tuple[Values, ...] = ((300, 200, 420, 330), (400, 260, 470, 390))


def visual_cot_lines(root: Path) -> Path:
    """Annotations: two boxes and a thought; and the same without a thought at half the size."""
    _write(root, {"cot/gqa/17.jpg": png(picture(5))})
    line = {
        "question": "Who is wearing it?",
        "answer": "girl",
        "full_answer": "The girl is.",
        "image": "17.jpg",
        "width": SIZE[0],
        "height": SIZE[1],
        "bboxs": [list(box) for box in COT_BOXES],
        "dataset": "gqa",
        "split": "train",
        "thought": "1. Find the people. 2. Look at them.",
    }
    half = {"width": 500, "height": 350, "bboxs": [[n / 2 for n in box] for box in COT_BOXES]}
    second = {key: value for key, value in (line | half).items() if key != "thought"}
    (root / "metadata").mkdir()
    text = f"{json.dumps(line)}\n{json.dumps(second)}\n"
    (root / "metadata" / "gqa_cot_train.jsonl").write_text(text, encoding="utf-8")
    return root


COT_TALL = (400, 640)
COT_BOX: Values = (100, 60, 300, 330)


def visual_cot_chats(root: Path) -> Path:
    """A conversation over an upright picture, padded at its left and right."""
    _write(root, {"cot/docvqa/9.png": png(picture(6, COT_TALL))})
    side, shift = max(COT_TALL), (COT_TALL[1] - COT_TALL[0]) // 2
    x0, y0, x1, y1 = COT_BOX
    fractions = [(x0 + shift) / side, y0 / side, (x1 + shift) / side, y1 / side]
    asking = " Please provide the bounding box coordinate of the region that can help you."
    record = {
        "dataset": "docvqa",
        "split": "train",
        "question_id": 0,
        "image": ["cot/docvqa/9.png", f"cot/docvqa/9.png###{[int(n) for n in COT_BOX]}"],
        "conversations": [
            {"from": "human", "value": f"<image>\nWhat is the date?{asking}"},
            {"from": "gpt", "value": "[" + ", ".join(f"{n:.3f}" for n in fractions) + "]"},
            {"from": "human", "value": "<image>"},
            {"from": "gpt", "value": "May 3"},
        ],
    }
    (root / "viscot_363k.json").write_text(json.dumps([record]), encoding="utf-8")
    return root


def _shown() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,"}}


def _write(root: Path, files: dict[str, bytes], *, zipped: bool = False) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if zipped:
        with zipfile.ZipFile(root / "images.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
