"""A promptable segmenter: the `segment_anything` networks, asked with points or boxes.

Owns the checkpoints' formats and the frame of the encoder's padded square. The package's own
predictor and mask generator are not used: quality filter, de-duplication and ranking run on the
low-resolution maps here, and only the survivors are enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Box, Size
from pipeline.models import sam_masks, weights
from pipeline.models.sam_build import ARCHITECTURES, build


def load(
    checkpoint: str | Path, variant: str | None = None, device: str = "cpu", *, threads: int = 1
) -> Segmenter:
    """A segmenter from `"pocket"` (shipped), the name of a pulled checkpoint, or a file.

    `variant` is needed only where neither the file's name nor its metadata tells. `threads` is
    torch's number of CPU threads: results are the same from run to run for the same number.
    """
    path = weights.find(checkpoint)
    digest = weights.check_digest(path)
    tensors, told = _read(path)
    variant = variant or told or next((v for v in ARCHITECTURES if v in path.name), None)
    if variant is None:
        raise ConfigError(f"{path.name} does not tell which SAM it is.", "Name the variant.")
    torch.set_num_threads(threads)
    model = build(variant)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"{path.name} is not a '{variant}' SAM: {error}") from error
    return Segmenter(model, variant, digest, device)


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the encoder made of one image."""

    features: torch.Tensor
    """float32 (1, C, g, g) over the padded square."""
    image: np.ndarray
    """The image, uint8 HWC."""
    square: sam_masks.Square
    """How it lies in the padded square."""

    @property
    def size(self) -> Size:
        """(width, height) of the image."""
        return self.square.size

    @property
    def side(self) -> int:
        """Side of the padded square, encoder pixels."""
        return self.square.side

    @property
    def scale(self) -> float:
        """Encoder pixels for each image pixel."""
        return self.side / max(self.size)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Masks for N independent prompts, k for each: one, or three where it is ambiguous."""

    logits: np.ndarray
    """float32 (N, k, h, w) over the padded square; above 0 is mask."""
    ious: np.ndarray
    """float32 (N, k): the IoU the model expects of each."""


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask that the automatic search kept."""

    mask: np.ndarray
    """bool HW of the whole image."""
    box: Box
    """Its sub-pixel box, from the low-resolution map."""
    score: float
    """The IoU the model expects."""
    stability: float
    """How little the mask depends on the cut, in [0, 1]."""
    point: tuple[float, float]
    """The prompt (x, y) it answers, image pixels."""


class Segmenter:
    """Weights of one model: an image is embedded once, then asked with points or boxes."""

    def __init__(self, model: Any, variant: str, digest: str, device: str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.variant = variant
        self.digest = digest
        """SHA-256 (hex) of the checkpoint's file."""
        self.side: int = model.image_encoder.img_size
        """Side of the encoder's square, pixels."""
        self.edge_radius = ARCHITECTURES[variant].edge_radius
        """Reach of the guided filter in cells of the mask map; 0 for none."""

    @torch.inference_mode()
    def embed(self, image: np.ndarray) -> Embedding:
        """Encode an image, uint8 HWC; its long side becomes the encoder's side."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ConfigError(f"An image is uint8 (H, W, 3), not {image.dtype} {image.shape}.")
        size = (image.shape[1], image.shape[0])
        inner = inner_size(size, self.side)
        seen = image
        if inner != size:
            seen = np.asarray(Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(np.array(seen)).to(self.model.device).permute(2, 0, 1).float()
        features = self.model.image_encoder(self.model.preprocess(pixels)[None])
        return Embedding(features, image, sam_masks.Square(self.side, inner, size))

    @torch.inference_mode()
    def predict(
        self,
        embedding: Embedding,
        *,
        points: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """One mask (three with `multimask`) for each prompt, the prompts independent.

        `points` (N, 2) and `boxes` (N, 4) are in image pixels; given both, they go in pairs.
        """
        prompts = [_rows(points, 2, embedding), _rows(boxes, 4, embedding)]
        counts = {len(rows) for rows in prompts if rows is not None}
        if len(counts) != 1 or not (count := counts.pop()):
            raise ConfigError("Give at least one prompt: points, boxes, or as many of each.")
        parts = []
        for start in range(0, count, _BATCH):
            dots, rects = (None if r is None else r[start : start + _BATCH] for r in prompts)
            parts.append(self._decode(embedding.features, dots, rects, multimask))
        logits, ious = (torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True))
        return Prediction(logits, ious)

    @torch.inference_mode()
    def masks(self, embedding: Embedding, logits: np.ndarray) -> np.ndarray:
        """Masks of the whole image, bool (N, H, W), for chosen maps (N, h, w).

        The pocket model's coarse maps are drawn to the picture's edges by a guided filter.
        """
        maps, square = torch.as_tensor(logits), embedding.square
        if not self.edge_radius:
            return sam_masks.masks_of(maps, square).numpy()
        return sam_masks.guided_masks(maps, square, embedding.image, self.edge_radius).numpy()

    @torch.inference_mode()
    def boxes(self, embedding: Embedding, logits: np.ndarray) -> np.ndarray:
        """Sub-pixel XYXY boxes, float32 (N, 4) in image pixels, of maps (N, h, w).

        Cheap: nothing is enlarged. A map without a mask has a row of NaN.
        """
        maps = embedding.square.inside(torch.as_tensor(logits))
        cell = self.side / logits.shape[-1] / embedding.scale
        boxes = sam_masks.map_boxes(maps) * cell
        return boxes.clamp(max=torch.tensor(embedding.size * 2)).numpy()

    def automatic(
        self,
        image: np.ndarray,
        *,
        grid: int = 8,
        points: ArrayLike | None = None,
        min_score: float = 0.6,
        min_stability: float = 0.7,
        most_overlap: float = 0.6,
        most_area: float = 0.9,
        limit: int | None = None,
    ) -> list[Mask]:
        """Masks of everything under a grid of points (or `points`, (N, 2)), best first.

        Filtered by expected IoU, stability and share of the image, and made distinct (no two
        overlap by more than `most_overlap` IoU), on the low-resolution maps.
        """
        embedding = self.embed(image)
        asked = grid_points(embedding.size, grid) if points is None else np.asarray(points, float)
        prediction = self.predict(embedding, points=asked, multimask=True)
        maps = torch.from_numpy(prediction.logits).flatten(0, 1)
        scores = torch.from_numpy(prediction.ious).flatten()
        inside = embedding.square.inside(maps)
        stable = sam_masks.stability(inside)
        area = (inside > 0).float().mean((1, 2))
        good = (scores >= min_score) & (stable >= min_stability)
        good &= (area > 0) & (area <= most_area)
        chosen = torch.nonzero(good)[:, 0]
        kept = sam_masks.distinct(inside[chosen] > 0, scores[chosen], most_overlap)[:limit]
        best = chosen[kept].tolist()
        logits = maps[best].numpy()
        found = zip(best, self.masks(embedding, logits), self.boxes(embedding, logits), strict=True)
        return [
            Mask(mask, Box(*box.tolist()), scores[i].item(), stable[i].item(), (*asked[i // 3],))
            for i, mask, box in found
        ]

    def _decode(
        self,
        features: torch.Tensor,
        points: torch.Tensor | None,
        boxes: torch.Tensor | None,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, k, h, w) and IoUs (N, k) for prompts in encoder pixels."""
        labelled = None
        if points is not None:
            labels = torch.ones(len(points), 1, device=features.device)
            labelled = (points[:, None].to(features.device), labels)
        corners = None if boxes is None else boxes.to(features.device)
        sparse, dense = self.model.prompt_encoder(labelled, corners, None)
        places = self.model.prompt_encoder.get_dense_pe()
        return self.model.mask_decoder(features, places, sparse, dense, multimask)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """The tensors of a .safetensors or .pth file, and the variant if the file tells it."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get("variant")
        return load_file(path), told
    if path.suffix == ".pth":
        return torch.load(path, map_location="cpu", weights_only=True), None
    raise ConfigError(f"{path.name} is neither .safetensors nor .pth.")


_BATCH = 64
"""Prompts decoded at once."""


def inner_size(size: Size, side: int) -> Size:
    """(width, height) of an image scaled so that its long side is `side`."""
    width, height = (max(1, int(length * side / max(size) + 0.5)) for length in size)
    return width, height


def grid_points(size: Size, grid: int) -> np.ndarray:
    """(x, y) of `grid` × `grid` points spread evenly over (width, height), float (N, 2)."""
    steps = (np.arange(grid) + 0.5) / grid
    xs, ys = np.meshgrid(steps * size[0], steps * size[1])
    return np.stack([xs.ravel(), ys.ravel()], 1)


def _rows(prompts: ArrayLike | None, columns: int, embedding: Embedding) -> torch.Tensor | None:
    """Prompts (N, columns) of the image in encoder pixels."""
    if prompts is None:
        return None
    rows = np.asarray(prompts, np.float32)
    if rows.ndim != 2 or rows.shape[1] != columns or not np.isfinite(rows).all():
        raise ConfigError(f"Prompts are (N, {columns}) finite numbers, not {rows.shape}.")
    return torch.from_numpy(rows * np.float32(embedding.scale))
