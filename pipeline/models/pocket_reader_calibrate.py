"""The last step of the pocket reader's recipe: its confidence becomes a chance.

The confidence is learned on worn lines of families that the recogniser knows little of, and is
still off by a slope and a shift on families that nothing was learned from. Two such families are
given up for fitting both; the others stay for measuring.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from pipeline.models import pocket_reader
from pipeline.models.pocket_reader import same
from pipeline.models.pocket_reader_lines import make_line
from pipeline.samples import rng_for
from pipeline.scenes import fonts

LINES, FIRST_SEED = 4000, 2 * 10**6
_LAST = "confidence.judge.4"
_EDGE = 1e-4
"""Chances nearer to 0 and 1 are taken for this near."""


def calibrate(checkpoint: Path, lines: int = LINES) -> Path:
    """Fit slope and shift of the confidence's logit (Platt 1999) and fold them into its weights.

    A checkpoint that reads nothing right, or everything, is left as it is.
    """
    logits, right = _judged(checkpoint, lines)
    if not right.any() or right.all():
        return checkpoint
    slope, shift = _fit(logits, right)
    with safe_open(checkpoint, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    state[f"{_LAST}.weight"] = (state[f"{_LAST}.weight"].float() * slope).half()
    state[f"{_LAST}.bias"] = (state[f"{_LAST}.bias"].float() * slope + shift).half()
    hidden = checkpoint.with_name(f".{checkpoint.name}")
    save_file(state, hidden, {**metadata, "calibrated_on": ",".join(fonts.CALIBRATION)})
    return hidden.rename(checkpoint)


def _judged(checkpoint: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The confidence's logits on fresh lines, and whether each line was read right."""
    drawn = [
        make_line(
            rng_for(seed, "pocket-reader", "calibration"), fonts.CALIBRATION, unlearnt_wear=True
        )
        for seed in range(FIRST_SEED, FIRST_SEED + count)
    ]
    readings = pocket_reader.load(checkpoint).read([line.image for line in drawn])
    chances = np.clip([r.confidence for r in readings], _EDGE, 1 - _EDGE)
    right = [bool(r.text) and same(r.text, d.text) for r, d in zip(readings, drawn, strict=True)]
    told = np.array([bool(r.text) for r in readings])
    return np.log(chances / (1 - chances))[told], np.array(right)[told]


def _fit(logits: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the likeliest logistic curve."""
    curve = nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))
    x, y = torch.tensor(logits), torch.tensor(right, dtype=torch.float64)
    search = torch.optim.LBFGS([curve], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        found = F.binary_cross_entropy_with_logits(curve[0] * x + curve[1], y)
        found.backward()
        return found

    search.step(loss)
    slope, shift = curve.tolist()
    if not (math.isfinite(slope) and math.isfinite(shift)):
        raise ValueError(f"No curve fits {len(logits)} readings.")
    return slope, shift
