"""Examples as LLaMA-Factory takes them: ShareGPT JSON, a folder of pictures, `dataset_info.json`.

Both of its forms: `messages` with `role` and `content`, which is the form that Chain-of-Focus was
published in, and `conversations` with `from` and `value`. Turns alternate in both, as its reader
drops a row whose do not: views that follow one another are one user turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from pipeline.agent.families import Family
from pipeline.geometry import visual_tokens
from pipeline.grammar import Profile
from pipeline.synthesis.export_rows import SPLITS, Example, Split
from pipeline.trajectory import Message
from pipeline.turns import Mark

PLACE = "<image>"
IMAGES = "images"
FORMS = ("", "_conversations")
TEMPLATES = {
    "qwen2-vl": "qwen2_vl",
    "qwen2.5-vl": "qwen2_vl",
    "qwen3-vl": "qwen3_vl",
    "internvl": "intern_vl",
}
"""By family, as LLaMA-Factory calls them."""

_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
_SPEAKERS = {"user": "human", "assistant": "gpt"}

README = """\
`settings.yaml` holds what must be set: without `image_max_pixels` LLaMA-Factory shrinks pictures to
768 x 768 pixels, and every box is then off. Run it in this folder, or make the paths absolute.
`train.json` has `messages` (role, content), `train_conversations.json` the same rows as
`conversations` (from, value); `sha256sum -c images.sha256` checks the pictures.
"""
_README_V1 = f"""\
The pictures stand inside the assistant's turn, and {Mark.ZOOMIN.value} is a new token: train with a
loop that leaves picture tokens out of the loss, which LLaMA-Factory by itself does not.
"""


class LlamaFactoryWriter:
    """JSON files, one for each split and form, and pictures below `images/`."""

    def __init__(self, folder: Path, family: Family, profile: Profile) -> None:
        self._folder, self._family, self._profile = folder, family, profile
        (folder / IMAGES).mkdir()
        self._digests = (folder / f"{IMAGES}.sha256").open("w", encoding="utf-8")
        self._files: dict[tuple[Split, str], IO[str]] = {}
        self._least = self._most = self._tokens = 0

    def add(self, example: Example) -> None:
        """Write an example and its pictures."""
        names = [f"{example.name}/{k}.{example.ending}" for k in range(len(example.pictures))]
        (self._folder / IMAGES / example.name).mkdir()
        for name, data in zip(names, example.pictures, strict=True):
            (self._folder / IMAGES / name).write_bytes(data)
            self._digests.write(f"{hashlib.sha256(data).hexdigest()}  {IMAGES}/{name}\n")
        pixels = [width * height for width, height in example.sizes]
        self._least = min(pixels + [self._least] * bool(self._least))
        self._most = max([*pixels, self._most])
        self._tokens = max(self._tokens, sum(map(visual_tokens, example.sizes)))
        told = said(example.messages)
        self._append(example.split, "", {"messages": told, "images": names})
        self._append(example.split, FORMS[1], {**_conversation(told), "images": names})

    def close(self) -> str:
        """End the files, tell LLaMA-Factory of them; what a reader must know."""
        self._digests.close()
        for file in self._files.values():
            file.write("\n]\n")
            file.close()
        info = {_dataset(split, form): _entry(split, form) for split, form in sorted(self._files)}
        text = json.dumps(info, indent=2)
        (self._folder / "dataset_info.json").write_text(text + "\n", "utf-8")
        (self._folder / "settings.yaml").write_text(self._settings(), "utf-8")
        return README + (_README_V1 if self._profile == "cof-v1" else "")

    def _append(self, split: Split, form: str, row: dict[str, Any]) -> None:
        """A row on a line of its own, in a JSON list."""
        file = self._files.get((split, form))
        if file is None:
            path = self._folder / f"{split}{form}.json"
            file = self._files[split, form] = path.open("w", encoding="utf-8")
            file.write("[\n")
        else:
            file.write(",\n")
        file.write(json.dumps(row, ensure_ascii=False))

    def _settings(self) -> str:
        """What must be set for these pictures, as LLaMA-Factory's own settings."""
        lines = [
            "dataset_dir: .",
            f"media_dir: {IMAGES}",
            *(
                f"{'dataset' if split == 'train' else 'eval_dataset'}: {_dataset(split, '')}"
                for split in SPLITS
                if (split, "") in self._files
            ),
            f"template: {TEMPLATES[self._family.name]}",
            f"image_max_pixels: {self._most}",
            f"image_min_pixels: {self._least}",
            f"# The pictures of the longest row take {self._tokens} tokens; its text comes on top.",
            "cutoff_len: 81920",
        ]
        if self._profile == "cof-v1":
            lines += [f'add_special_tokens: "{Mark.ZOOMIN.value}"', "resize_vocab: true"]
        return "\n".join(lines) + "\n"


def said(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The chat as texts with `<image>` where a picture stands; one speaker's turns are joined."""
    told: list[dict[str, str]] = []
    for message in messages:
        text = "".join(
            block["text"] if block["type"] == "text" else PLACE for block in message["content"]
        )
        if told and told[-1]["role"] == message["role"]:
            told[-1]["content"] += text
        else:
            told.append({"role": message["role"], "content": text})
    return told


def _conversation(told: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The same chat with `from` and `value`, the instructions apart."""
    turns = [
        {"from": _SPEAKERS[turn["role"]], "value": turn["content"]}
        for turn in told
        if turn["role"] != "system"
    ]
    system = [turn["content"] for turn in told if turn["role"] == "system"]
    return {"conversations": turns, "system": "".join(system)}


def _dataset(split: Split, form: str) -> str:
    return f"cofpipe_{split}{form}"


def _entry(split: Split, form: str) -> dict[str, Any]:
    """What `dataset_info.json` says of a file."""
    if form:
        columns = {"messages": "conversations", "system": "system", "images": "images"}
        return {"file_name": f"{split}{form}.json", "formatting": "sharegpt", "columns": columns}
    columns = {"messages": "messages", "images": "images"}
    return {
        "file_name": f"{split}.json",
        "formatting": "sharegpt",
        "columns": columns,
        "tags": _TAGS,
    }
