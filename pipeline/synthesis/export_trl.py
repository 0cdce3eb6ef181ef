"""Examples as TRL takes them: chats for SFT, prompts with what is rewarded for GRPO.

TRL (1.15 on): `messages` or `prompt` hold blocks of type `image` and `text`, `images` the pictures
in the order of the blocks; every other column of a GRPO row goes to the reward functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.synthesis.export_parquet import ParquetSplits, cells, weight_of
from pipeline.synthesis.export_rows import Example, Kind
from pipeline.trajectory import Message

if TYPE_CHECKING:
    from datasets import Features

README = {
    "sft": """\
Train with `SFTTrainer`, `max_length=None` (a cut chat loses picture tokens) and
`assistant_only_loss=True`; packing and padding-free batches are refused by TRL for pictures.
""",
    "rl": """\
Train with `GRPOTrainer`. Reward functions get `target`, `options` and `target_boxes`, boxes in the
numbers that the model writes. `source_image` is the published picture: a zoom tool cuts from it, at
`resolution`, or it adds no pixels that the first view does not have.
""",
}


class TrlWriter:
    """Parquet below `data/`."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._kind = kind
        self._splits = ParquetSplits(folder, features(kind))

    def add(self, example: Example) -> None:
        """Write an example."""
        row = _sft(example) if self._kind == "sft" else _rl(example)
        self._splits.add(example.split, row, weight_of(example))

    def close(self) -> str:
        """End the files; what a reader of the folder must know."""
        self._splits.close()
        return README[self._kind]


def features(kind: Kind) -> Features:
    """The columns, so that `load_dataset` gives pictures."""
    from datasets import Features, Image, List, Value

    text, number = Value("string"), Value("int32")
    chat = List({"role": text, "content": List({"type": text, "text": text})})
    pictures = {"images": List(Image())}
    key = {"sample_id": text, "image_id": text, "resolution": number, "rollout": number}
    if kind == "sft":
        return Features({"messages": chat, **pictures, **key, "weight": Value("float64")})
    truth = {
        "question": text,
        "target": text,
        "options": List(text),
        "target_boxes": List(List(Value("float64"))),
        "task": text,
        "source_image": Image(),
    }
    return Features({"prompt": chat, **pictures, **truth, **key})


def _sft(example: Example) -> dict[str, Any]:
    return {
        "messages": _blocks(example.messages),
        "images": cells(example),
        **_key(example),
        "weight": example.weight,
    }


def _rl(example: Example) -> dict[str, Any]:
    return {
        "prompt": _blocks(example.messages),
        "images": cells(example),
        "question": example.question,
        "target": example.target,
        "options": list(example.options),
        "target_boxes": example.target_boxes,
        "task": example.task,
        "source_image": {"bytes": example.source, "path": example.image_id},
        **_key(example),
    }


def _key(example: Example) -> dict[str, Any]:
    return {
        "sample_id": example.sample_id,
        "image_id": example.image_id,
        "resolution": example.resolution,
        "rollout": example.rollout,
    }


def _blocks(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The chat with nothing in a picture's block but its type: pixels stand in `images`."""
    return [
        {
            "role": message["role"],
            "content": [
                {"type": block["type"], "text": block["text"] if block["type"] == "text" else None}
                for block in message["content"]
            ],
        }
        for message in messages
    ]
