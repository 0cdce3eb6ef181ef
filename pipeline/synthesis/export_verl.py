"""Examples as verl takes them: RL prompts with `extra_info` and a file that names the zoom tool.

Columns as verl's `RLHFDataset` and its tool agent read them (v0.7): text with `<image>` where a
picture stands, `images`, `reward_model.ground_truth`, and under `extra_info.tools_kwargs` what the
tool is opened with.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.grammar import TOOL_NAME
from pipeline.instructions import TOOL_SCHEMA
from pipeline.synthesis.export_llamafactory import said
from pipeline.synthesis.export_parquet import ParquetSplits, cells, weight_of
from pipeline.synthesis.export_rows import Example

if TYPE_CHECKING:
    from datasets import Features

TOOL_CLASS = "verl.tools.image_zoom_in_tool.ImageZoomInTool"
AGENT = "tool_agent"

README = f"""\
Give verl `data/train-*.parquet`, and `tools.yaml` as its
`actor_rollout_ref.rollout.multi_turn.tool_config_path`. Raise `data.max_prompt_length` above the
picture tokens: a row whose prompt is longer is dropped. The tool agent tells the model of its tools
by itself, after the instructions that name the same one.
`tools.yaml` names {TOOL_CLASS}, which verl 0.7 has
and 0.8 has not: there, put a `BaseTool` of your own in its place. That class cuts, in pixels, from
the first view, so it enlarges what the model has seen already. A tool that cuts from
`create_kwargs.source`, the published picture, brings new pixels.
"""


class VerlWriter:
    """Parquet below `data/`, and `tools.yaml`."""

    def __init__(self, folder: Path) -> None:
        self._splits = ParquetSplits(folder, features())
        self._rows = 0
        (folder / "tools.yaml").write_text(tools(), "utf-8")

    def add(self, example: Example) -> None:
        """Write an example."""
        self._splits.add(example.split, _row(example, self._rows), 4 * weight_of(example))
        self._rows += 1

    def close(self) -> str:
        """End the files; what a reader of the folder must know."""
        self._splits.close()
        return README


def tools() -> str:
    """The tool's file; a line of JSON is YAML, too."""
    lines = [
        "tools:",
        f"  - class_name: {TOOL_CLASS}",
        "    config: {type: native, num_workers: 8, rate_limit: 8, timeout: 30}",
        f"    tool_schema: {json.dumps(TOOL_SCHEMA)}",
    ]
    return "\n".join(lines) + "\n"


def features() -> Features:
    """The columns, so that `load_dataset` gives pictures."""
    from datasets import Features, Image, List, Value

    text, number = Value("string"), Value("int32")
    opened = {"create_kwargs": {"image": text, "source": text}}
    extra = {
        "index": Value("int64"),
        "split": text,
        "question": text,
        "answer": text,
        "options": List(text),
        "target_boxes": List(List(Value("float64"))),
        "task": text,
        "sample_id": text,
        "image_id": text,
        "resolution": number,
        "need_tools_kwargs": Value("bool"),
        "tools_kwargs": {TOOL_NAME: opened},
    }
    return Features(
        {
            "data_source": text,
            "agent_name": text,
            "prompt": List({"role": text, "content": text}),
            "images": List(Image()),
            "ability": text,
            "reward_model": {"style": text, "ground_truth": text},
            "extra_info": extra,
        }
    )


def _row(example: Example, index: int) -> dict[str, Any]:
    opened = {"image": _uri(example.pictures[0]), "source": _uri(example.source)}
    extra = {
        "index": index,
        "split": example.split,
        "question": example.question,
        "answer": example.target,
        "options": list(example.options),
        "target_boxes": example.target_boxes,
        "task": example.task,
        "sample_id": example.sample_id,
        "image_id": example.image_id,
        "resolution": example.resolution,
        "need_tools_kwargs": True,
        "tools_kwargs": {TOOL_NAME: {"create_kwargs": opened}},
    }
    return {
        "data_source": "cofpipe",
        "agent_name": AGENT,
        "prompt": said(example.messages),
        "images": cells(example),
        "ability": "vision",
        "reward_model": {"style": "rule", "ground_truth": example.target},
        "extra_info": extra,
    }


def _uri(data: bytes) -> str:
    """Encoded pixels as a data URI, which verl's tools open like a path."""
    kind = {b"\x89": "png", b"R": "webp", b"G": "gif", b"B": "bmp"}.get(data[:1], "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
