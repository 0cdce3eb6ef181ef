"""The pocket finder: where in a view there are lines of text, readable or not.

A small convolutional network says for every cell of 4 × 4 pixels whether it lies on the middle of a
line and how far it is to the line's sides; cells that touch are one line. It does not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from pipeline.models import weights
from pipeline.models.pocket_finder_scenes import CELL, REACH_PX
from pipeline.models.pocket_reader import Residual

STRIDE = 32
"""Views are filled up to a multiple of this many pixels."""
ON = 0.4
"""Least chance of a cell that is on a line."""
LEAST_SCORE = 0.5
_TOLD_PX = 0.9 * REACH_PX


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text in a view."""

    box: tuple[float, float, float, float]
    """XYXY, view pixels: bounds of the ink, clipped to the view."""
    score: float
    """Chance in [0, 1] that there is text."""
    slope: float
    """dy/dx of the line: 0 is level, positive falls to the right."""


class Finder:
    """The finder with its weights."""

    def __init__(self, network: PocketFinder) -> None:
        self.network = network.eval()

    def find(self, view: np.ndarray, least_score: float = LEAST_SCORE) -> list[TextLine]:
        """Lines of text in a view (uint8 HWC), the surest first."""
        chances, distances = self.maps(view)
        height, width = view.shape[:2]
        found = []
        for rows, columns in pieces(chances > ON):
            line = _line(chances[rows, columns], distances[:, rows, columns], rows, columns)
            x0, y0, x1, y1 = line.box
            box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
            if line.score >= least_score and box[2] > box[0] and box[3] > box[1]:
                found.append(TextLine(box, line.score, line.slope))
        return sorted(found, key=lambda line: -line.score)

    @torch.inference_mode()
    def maps(self, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chance of each cell to be on a line (h, w), and its distances in pixels (4, h, w)."""
        height, width = view.shape[:2]
        filled = np.pad(view, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
        logits, distances = self.network(pixels_of(filled)[None])
        rows, columns = -(-height // CELL), -(-width // CELL)
        chances = torch.sigmoid(logits)[0, :rows, :columns].numpy()
        return chances, distances[0, :, :rows, :columns].numpy()


def load(checkpoint: str | Path = "pocket-finder") -> Finder:
    """The shipped finder, or one from a file; `ModelError` where there is none."""
    state = load_file(weights.find(checkpoint))
    network = PocketFinder()
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return Finder(network)


def pixels_of(view: np.ndarray) -> torch.Tensor:
    """A view (uint8 HWC) as the network takes it, float (3, H, W)."""
    pixels = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
    return (pixels.float() - 120.0) / 64.0


def pieces(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows, columns) of each 8-connected piece of a mask, bool HW."""
    left = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    found = []
    while left:
        ahead = [left.pop()]
        piece = []
        while ahead:
            row, column = ahead.pop()
            piece.append((row, column))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near = (row + dy, column + dx)
                    if near in left:
                        left.remove(near)
                        ahead.append(near)
        rows, columns = np.array(sorted(piece)).T
        found.append((rows, columns))
    return sorted(found, key=lambda piece: (int(piece[0][0]), int(piece[1][0])))


def _line(
    chances: np.ndarray, distances: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> TextLine:
    """One line from the cells of a piece: chances (n,) and distances (4, n)."""
    x, y = (columns + 0.5) * CELL, (rows + 0.5) * CELL
    left, top, right, bottom = distances
    middle = y + (bottom - top) / 2
    spread = float(np.var(x))
    slope = float(np.mean((x - x.mean()) * (middle - middle.mean())) / spread) if spread else 0.0
    first, last = columns <= columns.min() + 1, columns >= columns.max() - 1
    x0 = float(np.average((x - left)[first], weights=chances[first]))
    x1 = float(np.average((x + right)[last], weights=chances[last]))
    tall = float(np.average(top + bottom, weights=chances))
    at = float(np.average(middle - slope * x, weights=chances))
    ends = (at + slope * x0, at + slope * x1)
    top_most, lowest = min(ends) - tall / 2, max(ends) + tall / 2
    best = np.sort(chances)[-max(1, len(chances) // 2) :]
    return TextLine((x0, top_most, x1, lowest), float(best.mean()), slope)


class PocketFinder(nn.Module):
    """(N, 3, H, W) -> logits (N, H/4, W/4) and distances in pixels (N, 4, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _Pyramid()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.net(pixels)
        return out[:, 0], F.softplus(out[:, 1:]) * 8


class _Pyramid(nn.Module):
    """Coarser and coarser looks at the view, added up again at a quarter of its resolution."""

    def __init__(self, kept: int = 32) -> None:
        super().__init__()
        self.quarter = nn.Sequential(_down(3, 16), _down(16, 32), Residual(32))
        self.eighth = nn.Sequential(_down(32, 48), Residual(48), Residual(48))
        self.sixteenth = nn.Sequential(_down(48, 64), Residual(64), Residual(64))
        self.least = nn.Sequential(_down(64, 80), Residual(80))
        self.across = nn.ModuleList(nn.Conv2d(wide, kept, 1) for wide in (32, 48, 64, 80))
        self.head = nn.Sequential(
            nn.Conv2d(kept, kept, 3, 1, 1, bias=False),
            nn.BatchNorm2d(kept),
            nn.ReLU(),
            nn.Conv2d(kept, 5, 1),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        looks = [pixels.contiguous(memory_format=torch.channels_last)]
        for stage in (self.quarter, self.eighth, self.sixteenth, self.least):
            looks.append(stage(looks[-1]))
        sums = None
        for look, across in zip(reversed(looks[1:]), reversed(self.across), strict=True):
            here = across(look)
            sums = here if sums is None else here + F.interpolate(sums, scale_factor=2.0)
        return self.head(sums)


def _down(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, 2, 1, bias=False), nn.BatchNorm2d(outward), nn.ReLU()
    )
