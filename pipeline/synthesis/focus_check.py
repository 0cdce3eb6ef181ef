"""Verified focus, proven from published rows alone: crops, verdicts, and the scripted probes.

What a model answered to a probe cannot be asked again without it; that its stored words give the
stored verdict can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.agent.opening import WRITTEN
from pipeline.agent.probes import ScriptedProber
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.tools import Tools
from pipeline.geometry import Box
from pipeline.samples import Sample
from pipeline.synthesis.checks import pixels_sha256, verdicts
from pipeline.views import View

Row = Mapping[str, Any]
COLUMNS = (
    *("kind", "options", "verified", "unaided_answer", "crop_answer", "necessary", "sufficient"),
    *("image_id",),
)
"""What the check needs of a row, besides what `recheck` reads anyway."""


class FocusCheck:
    """Looks at rows again; holds the segmenter and the reader once a row needs them."""

    def __init__(self, segmenter: Mapping[str, Any] | None = None) -> None:
        self._settings = segmenter or {"checkpoint": "pocket", "variant": None, "device": "cpu"}
        self._segmenter: Any = None
        self._reader: Any = None
        self._tools: tuple[Image.Image, bool, Tools] | None = None

    def problems(self, row: Row, image: Image.Image, looks: Sequence[View]) -> Iterator[str]:
        """What the row says of its checks that does not follow, one sentence each.

        `looks` are the views of its steps that have one.
        """
        yield from _other_crops(row, looks)
        boxes = [Box(*values) for values in row["target_boxes"] or ()]
        if not row.get("verified") or row.get("unaided_answer") is None:
            return
        for name, found in verdicts(row, boxes).items():
            if row[name] is not found:
                yield f"{name} is {row[name]}; it should be {found}."
        if row["policy"] == ScriptedPolicy.name:
            yield from self._answered_otherwise(row, image, looks)

    def _answered_otherwise(
        self, row: Row, image: Image.Image, looks: Sequence[View]
    ) -> Iterator[str]:
        """Where the scripted policy, asked again, answers a probe in other words."""
        options = tuple(row["options"] or ())
        sample = Sample(
            row["sample_id"], row["image_id"], image, image.size, row["question"], options
        )
        prober = ScriptedProber(ScriptedPolicy(), self._opened(image, row["kind"] in WRITTEN))
        resolution = int(row["same_view_as"] or row["resolution"])
        found = {"unaided_answer": asyncio.run(prober.unaided(sample, resolution))}
        if looks:
            found["crop_answer"] = asyncio.run(prober.from_crop(sample, looks[-1]))
        for name, answer in found.items():
            if row[name] != answer:
                yield f"{name} is {row[name]!r}; asked again it is {answer!r}."

    def _opened(self, image: Image.Image, writing: bool) -> Tools:
        """The tools over a picture; those of the row before, where it is the same."""
        known = self._tools
        if known is not None and known[0] is image and known[1] is writing:
            return known[2]
        if self._segmenter is None:
            from pipeline.models.sam import load

            settings = self._settings
            self._segmenter = load(settings["checkpoint"], settings["variant"], settings["device"])
        if writing and self._reader is None:
            from pipeline.agent.pocket_reader import build_reader

            self._reader = build_reader()
        tools = Tools(image, self._segmenter, (), self._reader if writing else None)
        self._tools = (image, writing, tools)
        return tools


def _other_crops(row: Row, looks: Sequence[View]) -> Iterator[str]:
    """Looks whose pixels, cut again, are not those that were seen."""
    told = [step.get("crop_sha256") for step in row["steps"] or () if any(step["zoomed"])]
    for number, (digest, look) in enumerate(zip(told, looks, strict=False), start=1):
        if digest and pixels_sha256(look) != digest:
            yield f"look {number} shows other pixels than when it was made."
