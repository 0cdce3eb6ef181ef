"""The training recipe of the pocket finder: drawn pictures with text, one small checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models.pocket_finder import PocketFinder, pixels_of
from pipeline.models.pocket_finder_scenes import (
    REACH_PX,
    generator_digest,
    training_page,
    truth_maps,
)
from pipeline.models.pocket_training import Plan, Recipe
from pipeline.models.pocket_training import train as train_recipe

HARD = 3
"""Cells off the lines that count, for each cell on one: those that look most like text."""


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 40.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the checkpoint, fp16 safetensors."""
    return train_recipe(RECIPE, out, Plan(seed, minutes, images), workers=workers)


def losses(
    network: nn.Module, part: str, seed: int, indices: range, along: float
) -> dict[str, torch.Tensor]:
    """The mean loss of a batch: which cells are on lines, and how far their sides are."""
    pages = [training_page(seed, index) for index in indices]
    pixels = torch.stack([pixels_of(page.image) for page in pages])
    maps = zip(*(truth_maps(page) for page in pages), strict=True)
    core, weight, distances = (torch.from_numpy(np.stack(planes)) for planes in maps)
    logits, told = network(pixels)
    cells = _cells_loss(logits, core, weight)
    overlap = _overlap_loss(logits, core, weight)
    sides = _sides_loss(told, distances, core)
    return {
        "total": cells + overlap + sides,
        "cells": cells.detach(),
        "overlap": overlap.detach(),
        "sides": sides.detach(),
    }


def _cells_loss(logits: torch.Tensor, core: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the cells on lines and of the hardest of the others."""
    each = F.binary_cross_entropy_with_logits(logits, core, reduction="none") * weight
    on = core > 0.5
    positive, negative = each[on], each[~on]
    count = min(negative.numel(), HARD * positive.numel() + 256)
    return torch.cat([positive, negative.topk(count).values]).mean() + negative.mean()


def _overlap_loss(logits: torch.Tensor, core: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One minus the Dice coefficient, over the batch."""
    chances = torch.sigmoid(logits) * weight
    shared = (chances * core).sum()
    return 1 - (2 * shared + 1) / (chances.sum() + (core * weight).sum() + 1)


def _sides_loss(told: torch.Tensor, truth: torch.Tensor, core: torch.Tensor) -> torch.Tensor:
    """Mean difference of the logarithms of the distances, px; ends out of reach are as far."""
    near, true = told.clamp(max=REACH_PX), truth.clamp(max=REACH_PX)
    off = ((near + 2).log() - (true + 2).log()).abs().sum(1)
    return (off * core).sum() / core.sum().clamp(min=1)


RECIPE = Recipe(
    name="pocket_finder",
    build=PocketFinder,
    losses=losses,
    generator_digest=generator_digest,
    batch=16,
    parts=(("net", 1.0),),
)
