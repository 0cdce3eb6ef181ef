"""The training recipe of the pocket reader: drawn lines in, one small checkpoint out.

The recogniser learns first, by CTC. Then it stays as it is, and the confidence learns whether what
was decoded is right, mostly on letterforms and wear that the recogniser never learned from. At last
it is calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models.pocket_reader import PocketReader, decode, encode, prepare, same
from pipeline.models.pocket_reader_calibrate import calibrate
from pipeline.models.pocket_reader_lines import Line, generator_digest, training_line
from pipeline.models.pocket_training import Plan, Recipe
from pipeline.models.pocket_training import train as train_recipe

GROUPS = 3
"""Passes that a worker's share of a step is cut into, by width: less is spent on filling up."""
UNLEARNT = 3
"""Of every four lines the confidence learns from, how many the recogniser could not learn from."""


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 40.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the checkpoint, fp16 safetensors."""
    return calibrate(train_recipe(RECIPE, out, Plan(seed, minutes, images), workers=workers))


def losses(
    network: nn.Module, part: str, seed: int, indices: range, along: float
) -> dict[str, torch.Tensor]:
    """The mean loss of a batch, for the part whose turn it is, and how much of it is read right."""
    assert isinstance(network, PocketReader)
    if part == "recogniser":
        lines = [training_line(seed, index) for index in indices]
    else:
        lines = [training_line(seed, i, calibration=i % 4 < UNLEARNT) for i in indices]
    batches = batched(lines)
    results = [_loss_of(network, part, pixels, truth) for pixels, truth in batches]
    shares = torch.tensor([len(truth) for _, truth in batches]) / len(lines)
    total, right = (torch.stack(values) @ shares for values in zip(*results, strict=True))
    return {"total": total, "right": right}


def batched(lines: Sequence[Line]) -> list[tuple[torch.Tensor, list[str]]]:
    """Lines in `GROUPS` batches (N, 3, HEIGHT, W) of like width, with what they say."""
    prepared = sorted(
        ((prepare(line.image), line.text) for line in lines), key=lambda pair: pair[0].shape[2]
    )
    size = -(-len(prepared) // GROUPS)
    batches = []
    for start in range(0, len(prepared), size):
        some = prepared[start : start + size]
        wide = some[-1][0].shape[2]
        pixels = np.zeros((len(some), *some[0][0].shape[:2], wide), np.float32)
        for row, (line, _) in zip(pixels, some, strict=True):
            row[:, :, : line.shape[2]] = line
        batches.append((torch.from_numpy(pixels), [text for _, text in some]))
    return batches


def _loss_of(
    network: PocketReader, part: str, pixels: torch.Tensor, truth: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    if part == "recogniser":
        _, logits = network.recogniser(pixels)
        targets, lengths = encode(truth)
        steps = torch.full((len(truth),), logits.shape[1])
        each = F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            targets,
            steps,
            lengths,
            reduction="none",
            zero_infinity=True,
        )
        right = [read == said for read, said in zip(decode(logits), truth, strict=True)]
        return (each / lengths.clamp(min=1)).mean(), torch.tensor(right).float().mean()
    with torch.no_grad():
        features, logits = network.recogniser(pixels)
    texts = decode(logits)
    target = torch.tensor([float(same(a, b)) for a, b in zip(texts, truth, strict=True)])
    told = torch.tensor([float(bool(text)) for text in texts])
    chance = network.confidence(features, logits, texts)
    entropy = F.binary_cross_entropy_with_logits(chance, target, weight=told)
    return entropy, target.mean()


RECIPE = Recipe(
    name="pocket_reader",
    build=PocketReader,
    losses=losses,
    generator_digest=generator_digest,
    batch=96,
    parts=(("recogniser", 0.88), ("confidence", 1.0)),
)
