"""What a policy acts on while it is trained by reinforcement: one picture, and a tool that zooms.

Owns one rollout's looks: a call is carried out on source pixels by the observation law, or told
why it was not. Knows nothing of models, tokens and rewards; TRL makes one object for each rollout,
calls `reset` with the row, and takes every public method for a tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.agent.families import Family, as_xyxy
from pipeline.agent.roles import MISREAD
from pipeline.errors import BadImage, ConfigError, InvalidBox
from pipeline.geometry import Box
from pipeline.sources.decode import decode
from pipeline.train.agar import Look, look_record
from pipeline.trajectory import Observation
from pipeline.views import whole_at, zoomed

Block = dict[str, Any]
"""A piece of a message: `{"type": "image", "image": picture}` or `{"type": "text", "text": …}`."""


class ZoomEnvironment:
    """One rollout's picture; made once, reset for each rollout."""

    def __init__(self, family: Family) -> None:
        self.looks: list[Look] = []
        """One for each call that named a box, in order: what `agar.zoomed_rollouts` reads."""
        self.malformed = 0
        """Calls that could not be read."""
        self._family = family
        self._source: Any = None
        self._picture: Image.Image | None = None
        self._resolution = 0
        self._seen: list[Observation] = []

    def reset(self, **row: Any) -> None:
        """Begin a rollout on a row as `cofpipe export --trainer trl --kind rl` writes it.

        `source_image` is the published picture, encoded (`{"bytes": …}`) or decoded; it is decoded
        at the first zoom only. Raises `ConfigError` for a row without it, and where the first view
        is not the one that its budget makes of that picture.
        """
        missing = [name for name in ("source_image", "resolution", "images") if not row.get(name)]
        if missing:
            raise ConfigError(
                f"A row has no '{missing[0]}': there is nothing to zoom into.",
                "Write the data with: cofpipe export RUN --trainer trl --kind rl",
            )
        self.looks, self.malformed = [], 0
        self._source, self._picture = row["source_image"], None
        self._resolution = int(row["resolution"])
        self._seen = []
        self._first = tuple(row["images"][0].size)

    def image_zoom_in_tool(self, bbox_2d: Sequence[float], label: str = "") -> list[Block]:
        """Show one region of the first picture enlarged.

        Args:
            bbox_2d: The region: left, top, right, bottom.
            label: What the region shows, if known.

        Returns:
            The region as a picture, or why it cannot be shown.
        """
        picture, seen = self._opened()
        try:
            frame = self._family.frame(picture.size, seen[0].size)
            box = Box.from_frame(as_xyxy(bbox_2d, self._family.order), frame)
            view = zoomed(picture, box, self._resolution, 0)
        except InvalidBox as error:
            self.looks.append(look_record(None, seen))
            return _told(error.message)
        self.looks.append(look_record(view.observation, seen))
        seen.append(view.observation)
        return [{"type": "image", "image": Image.fromarray(view.pixels)}]

    def misread(self, why: str) -> list[Block]:
        """Tell why a call could not be read.

        Args:
            why: What is wrong with it.

        Returns:
            The words for the policy.
        """
        self.malformed += 1
        return _told(why)

    def _opened(self) -> tuple[Image.Image, list[Observation]]:
        """The source picture and every view so far, the first one included."""
        if self._picture is None:
            self._picture = _decoded(self._source)
            whole = whole_at(self._picture.size, self._resolution)
            if whole.size != self._first:
                raise ConfigError(
                    f"A row shows {self._first}; at {self._resolution} it would be {whole.size}.",
                    "Export the run again: the data is of another version.",
                )
            self._seen = [whole]
        return self._picture, self._seen


def _decoded(source: Image.Image | Mapping[str, Any]) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    try:
        return decode(source["bytes"])
    except BadImage as error:
        raise ConfigError(f"A source picture does not open: {error.reason}.") from error


def _told(why: str) -> list[Block]:
    return [{"type": "text", "text": MISREAD.format(why=why)}]
