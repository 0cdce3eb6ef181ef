"""What a model is told before the first picture: its task, its tool, the form of its turns.

Our own words. The published prompts are bytes of others; an exporter that needs them reads them
from their source.
"""

from __future__ import annotations

import json

from pipeline.geometry import Frame
from pipeline.grammar import BOX_END, BOX_START, TOOL_NAME, Profile, known_profile
from pipeline.turns import Mark

TOOL_SCHEMA = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Shows one region of the first picture enlarged.",
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "The region: left, top, right, bottom.",
                },
                "label": {"type": "string", "description": "What the region shows, if known."},
            },
            "required": ["bbox_2d"],
        },
    },
}

_TASK = (
    "You answer questions about a picture. Where a detail that matters is too small to make out, "
    "look at that region enlarged, as often as needed; where you already see enough, answer at "
    "once."
)
_FORMS: dict[Profile, str] = {
    "cof-v2": f"""\
You have one tool:
<tools>
{json.dumps(TOOL_SCHEMA)}
</tools>

To look closer, write
<think> what you look for and where </think>
<tool_call>
{{"name": "{TOOL_NAME}", "arguments": {{"bbox_2d": [x1, y1, x2, y2]}}}}
</tool_call>
and wait for the enlarged region, which comes as the next picture. To finish, write
<think> what you saw </think>
<answer> the answer alone </answer>""",
    "cof-v1": f"""\
Think between <think> and </think>. Name a region as {BOX_START}[x1, y1, x2, y2]{BOX_END}; write
{Mark.ZOOMIN.value} to see the regions named since the last one enlarged, and go on thinking with
them before you. Then finish with
<answer> the answer alone </answer>""",
}


def instructions(profile: Profile, frame: Frame) -> str:
    """The system message for a profile, and for boxes in the numbers of `frame`."""
    form = _FORMS[known_profile(profile)]
    return f"{_TASK}\n\n{form}\n\nA box is [left, top, right, bottom] {convention(frame)}."


def convention(frame: Frame) -> str:
    """In what numbers boxes of `frame` are written, as words."""
    if frame.view is not None:
        return f"in pixels of the first picture, which is {frame.view[0]} x {frame.view[1]}"
    return {
        "thousand": "in thousandths of the first picture's width and height, 0 to 1000",
        "unit": "in fractions of the first picture's width and height, 0 to 1",
        "unit-padded": "in fractions, 0 to 1, of the first picture padded to a square",
    }[frame.kind]
