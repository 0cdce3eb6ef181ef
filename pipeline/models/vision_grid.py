"""From a box in a picture to the attention keys that show it: one small adapter per family.

Owns where a model's visual tokens lie on the picture it was given: padding, cropping, tiles, line
ends, merged patches. Positions come from the row's own tokens, never from counting text. Knows
nothing of networks, prompts or weights, and imports none: numbers and arrays only.

    LLaVA-1.5     a square of 24 × 24 tokens: the picture padded, cropped or squeezed
    LLaVA-NeXT    the same of the whole picture, then lines of tiles without the empty border
    Qwen-VL       one token for each 2 × 2 patches of the resized picture
    InstructBLIP  1 + 16 × 16 keys of the Q-Former's cross-attention, none of the text's
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import ConfigError
from pipeline.geometry import Size
from pipeline.grids import SAME, Affine, Grid, Panel, Rule, Space, UnitBox, apply

FrameName = Literal["model", "image"]
"""Of what a box is a fraction: of what the model sees, or of the picture it was given. LLaVA-1.5
with padding speaks of the padded square, so a box that it says is in `model`; one that a person
drew on the picture is in `image`. For the families that only resize, they are the same."""

_PUBLISHED = Rule()


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture as it was handed to a model's processor."""

    size: Size
    """(width, height) before the processor."""
    grid: tuple[int, int, int] | None = None
    """Its row of `image_grid_thw`: patches in time, down and across. Qwen-VL only."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Where the visual tokens of one checkpoint lie; a family says its panels and its frame."""

    image_token: int | None
    """Stands in a row once for each visual token; None where the keys are not the text's: then the
    flags are those of the Q-Former's cross-attention."""
    space: Space | None = "unit"
    """In which the family speaks of boxes; None when it says none."""

    def panels(self, seen: Seen) -> tuple[Panel, ...]:
        """The rasters whose keys make up the picture, in their order."""
        raise NotImplementedError

    def affine(self, size: Size) -> Affine:
        """From the picture of `size` to what the model sees: the same where it is only resized."""
        return SAME

    def spoken_size(self, seen: Seen) -> Size | None:
        """(width, height) of which the model's own boxes are pixels; None in other spaces."""
        return None

    def to_model(self, box: UnitBox, size: Size) -> UnitBox:
        """A box of the picture in what the model sees; outside 0..1 where that was cut off."""
        return apply(self.affine(size), box)

    def to_image(self, box: UnitBox, size: Size) -> UnitBox:
        """A box of what the model sees in the picture of `size`, for drawing it there."""
        ax, bx, ay, by = self.affine(size)
        return apply((1 / ax, -bx / ax, 1 / ay, -by / ay), box)

    def count(self, seen: Seen) -> int:
        """How many keys a picture has."""
        return sum(len(panel.whole()) for panel in self.panels(seen))

    def flags(
        self,
        ids: ArrayLike,
        pictures: Sequence[Seen],
        boxes: Sequence[UnitBox] | None,
        *,
        rule: Rule = _PUBLISHED,
        picture: int = 0,
        frame: FrameName = "image",
    ) -> np.ndarray:
        """Which keys of a row show one of the boxes, bool (keys,); of no boxes, none.

        `ids` is the row, int (L,), with its padding and every picture's tokens; the keys are its L
        places, or those of the picture alone where they are not the text's. `pictures` are all of
        the row's, in order; the boxes lie in one, and None stands for the whole of it. Raises
        `ValueError` where the row and its pictures disagree, `InvalidBox`.
        """
        if not 0 <= picture < len(pictures):
            raise ValueError(f"A row of {len(pictures)} pictures has none numbered {picture}.")
        seen = pictures[picture]
        if boxes is not None and frame == "image":
            boxes = [self.to_model(box, seen.size) for box in boxes]
        panels = self.panels(seen)
        parts = [p.whole() if boxes is None else p.met(boxes, rule) for p in panels]
        found = np.concatenate(parts)
        if self.image_token is None:
            return found
        return self._placed(np.asarray(ids), [self.count(one) for one in pictures], picture, found)

    def _placed(
        self, ids: np.ndarray, counts: list[int], picture: int, found: np.ndarray
    ) -> np.ndarray:
        """A picture's flags at the places of its tokens, bool (L,)."""
        if ids.ndim != 1:
            raise ValueError(f"A row of tokens has one dimension, not {ids.ndim}.")
        places = np.flatnonzero(ids == self.image_token)
        if len(places) != sum(counts):
            raise ValueError(f"A row of {len(places)} visual tokens does not hold {counts}.")
        start = sum(counts[:picture])
        flags = np.zeros(len(ids), bool)
        flags[places[start : start + counts[picture]][found]] = True
        return flags


@dataclass(frozen=True, kw_only=True)
class Llava(Adapter):
    """LLaVA-1.5: one square of `side` × `side` tokens."""

    side: int = 24
    fit: Literal["pad", "crop", "squeeze"] = "pad"
    """`pad`: to a square about the centre, as LLaVA was trained. `crop`: the shortest edge to
    `shortest_px`, then the square of `crop_px` in the middle, as processors do by default."""
    shortest_px: int = 336
    crop_px: int = 336
    before: int = 0
    """1 where the class token is kept among the visual tokens."""

    def panels(self, seen: Seen) -> tuple[Panel, ...]:
        aspect = seen.size[0] / seen.size[1] if self.fit == "squeeze" else 1.0
        return (Panel((self.side, self.side), aspect, before=self.before),)

    def affine(self, size: Size) -> Affine:
        """Agrees with the processors within a pixel of 336."""
        width, height = size
        if self.fit == "pad":
            side = max(size)
            left, top = (side - width) // 2, (side - height) // 2
            return width / side, left / side, height / side, top / side
        if self.fit == "crop":
            return *self._cropped(width, height), *self._cropped(height, width)
        return SAME

    def _cropped(self, side: int, other: int) -> tuple[float, float]:
        """(scale, shift) along one side of the picture."""
        length = self.shortest_px if side <= other else int(self.shortest_px * side / other)
        return length / self.crop_px, -((length - self.crop_px) // 2) / self.crop_px


@dataclass(frozen=True, kw_only=True)
class LlavaNext(Adapter):
    """LLaVA-NeXT: the whole picture squeezed into `side` × `side` tokens, then a canvas of tiles.

    Of the canvas the rows or columns that the picture does not reach are left out, and each row
    ends with a token that shows nothing.
    """

    side: int = 24
    patch_px: int = 14
    canvases: tuple[Grid, ...] = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    """(height, width) in pixels that tiles may make up: `image_grid_pinpoints`."""

    def panels(self, seen: Seen) -> tuple[Panel, ...]:
        high, wide = self.canvas(seen.size)
        grid = high // self.patch_px, wide // self.patch_px
        at, kept = self._on_canvas(seen.size), self._kept(seen.size, grid)
        base = Panel((self.side, self.side), seen.size[0] / seen.size[1])
        return base, Panel(grid, wide / high, at, kept, line_end=1)

    def canvas(self, size: Size) -> Grid:
        """(height, width) in pixels of the canvas that keeps most of a picture's pixels, and of
        these the one with the least left empty; the first among equals."""
        width, height = size

        def worth(canvas: Grid) -> tuple[int, int]:
            scale = min(canvas[1] / width, canvas[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - canvas[0] * canvas[1]

        return max(self.canvases, key=worth)

    def _on_canvas(self, size: Size) -> Affine:
        """From the picture to its canvas: as large as fits, in the middle."""
        (width, height), (high, wide) = size, self.canvas(size)
        across, down = wide / width, high / height
        new_width, new_height = wide, min(math.ceil(height * across), high)
        if across >= down:
            new_width, new_height = min(math.ceil(width * down), wide), high
        left, top = (wide - new_width) // 2, (high - new_height) // 2
        return new_width / wide, left / wide, new_height / high, top / high

    @staticmethod
    def _kept(size: Size, grid: Grid) -> tuple[slice, slice]:
        """The canvas's rows and columns of tokens that the picture reaches, by the model's rule."""
        (width, height), (rows, cols) = size, grid
        if width / height > cols / rows:
            empty = (rows - int(round(height * (cols / width), 7))) // 2
            return slice(empty, rows - empty), slice(0, cols)
        empty = (cols - int(round(width * (rows / height), 7))) // 2
        return slice(0, rows), slice(empty, cols - empty)


@dataclass(frozen=True, kw_only=True)
class Qwen(Adapter):
    """Qwen-VL: the picture resized, one token for `merge` × `merge` patches, frame by frame."""

    merge: int = 2
    patch_px: int = 14

    def panels(self, seen: Seen) -> tuple[Panel, ...]:
        frames, rows, cols = self._patches(seen)
        panel = Panel((rows // self.merge, cols // self.merge), cols / rows)
        return (panel,) * frames

    def spoken_size(self, seen: Seen) -> Size | None:
        _, rows, cols = self._patches(seen)
        return (cols * self.patch_px, rows * self.patch_px) if self.space == "pixel" else None

    def _patches(self, seen: Seen) -> tuple[int, int, int]:
        if seen.grid is None or min(seen.grid) < 1 or any(n % self.merge for n in seen.grid[1:]):
            raise ValueError(f"{seen.grid} is no row of image_grid_thw that merges by {self.merge}")
        return seen.grid


@dataclass(frozen=True, kw_only=True)
class InstructBlip(Adapter):
    """InstructBLIP: what the text sees are queries without a place, so the keys are those of the
    Q-Former's cross-attention: the class token's, then `side` × `side` of the squeezed picture."""

    side: int = 16
    image_token: None = None
    space: Space | None = None

    def panels(self, seen: Seen) -> tuple[Panel, ...]:
        return (Panel((self.side, self.side), seen.size[0] / seen.size[1], before=1),)


_QWEN: dict[str, Space] = {"qwen2_vl": "permille", "qwen2_5_vl": "pixel", "qwen3_vl": "permille"}


def adapter_for(config: Any, processor: Any = None) -> Adapter:
    """The adapter of a checkpoint, from its configuration and its image settings.

    `processor` is the image processor or the processor that holds one; only LLaVA-1.5 needs it: it
    says whether pictures are padded. Raises `ConfigError` for a family without an adapter.
    """
    kind: str = config.model_type
    vision: Any = getattr(config, "vision_config", None)
    if kind in _QWEN:
        image, merge, patch = config.image_token_id, vision.spatial_merge_size, vision.patch_size
        return Qwen(image_token=image, space=_QWEN[kind], merge=merge, patch_px=patch)
    if kind == "llava":
        return _llava(config, processor)
    if kind == "llava_next":
        image, patch = config.image_token_index, vision.patch_size
        canvases = tuple((high, wide) for high, wide in config.image_grid_pinpoints)
        return LlavaNext(image_token=image, side=_side(config), patch_px=patch, canvases=canvases)
    if kind == "instructblip":
        return InstructBlip(side=_side(config))
    raise ConfigError(
        f"A model of type '{kind}' has no map from boxes to its visual tokens.",
        f"Known: {', '.join(sorted([*_QWEN, 'llava', 'llava_next', 'instructblip']))}.",
    )


def _llava(config: Any, processor: Any) -> Llava:
    images = getattr(processor, "image_processor", processor)
    if images is None:
        raise ConfigError("LLaVA's image settings say whether pictures are padded; give them.")
    fit: Literal["pad", "crop", "squeeze"] = "squeeze"
    seen = shortest = config.vision_config.image_size
    if images.do_pad:
        fit = "pad"
    elif images.do_center_crop:
        fit, shortest = "crop", images.size["shortest_edge"]
        if images.crop_size["height"] != seen or (shortest or 0) < seen:
            raise ConfigError(f"These image settings do not crop to the {seen} px that LLaVA sees.")
    return Llava(
        image_token=config.image_token_index,
        side=_side(config),
        fit=fit,
        shortest_px=shortest,
        crop_px=seen,
        before=int(config.vision_feature_select_strategy == "full"),
    )


def _side(config: Any) -> int:
    """Tokens along a side of the square that the vision tower sees."""
    side: int = config.vision_config.image_size // config.vision_config.patch_size
    return side
