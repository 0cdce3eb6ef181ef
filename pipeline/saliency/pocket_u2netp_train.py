"""The training recipe of the pocket U²-NetP: drawn pictures with salient things, one checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from pipeline.models.pocket_training import Plan, Recipe
from pipeline.models.pocket_training import train as train_recipe
from pipeline.saliency.pocket_u2netp_scenes import generator_digest, training_sighting
from pipeline.saliency.u2net import SIDE, U2Net, build, load, prepared
from pipeline.samples import rng_for

SIDES = {128: 0.5, 160: 0.2, 192: 0.12, 224: 0.08, 256: 0.06, SIDE: 0.04}
"""Sides of training pictures, pixels, and the share of the steps that have them."""
LAST_SIDES = {192: 0.35, 256: 0.35, SIDE: 0.3}
"""The same for the end of the schedule: near what the network sees when it is used."""
LAST = 0.8
"""Share of the schedule after which the end begins."""
BATCH = 8
SETTLING = 192
"""Pictures of the full side on which the statistics of the batch norms are taken at the end."""


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 90.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the checkpoint, fp16 safetensors."""
    path = train_recipe(RECIPE, out, Plan(seed, minutes, images), workers=workers)
    return settle(path, seed)


def settle(path: Path, seed: int, pictures: int = SETTLING) -> Path:
    """Take the statistics of a checkpoint's batch norms anew, for its own weights and full side.

    Those of the training are of weights before the mean and of smaller pictures.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    network = load(path, "u2netp").train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
    with torch.inference_mode():
        for first in range(0, pictures, BATCH):
            indices = range(first, min(first + BATCH, pictures))
            network.logits(_batch(seed + 1, indices, SIDE)[0])
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    hidden = path.with_name(f".{path.name}")
    save_file(state, hidden, metadata)
    hidden.chmod(0o644)
    return hidden.rename(path)


def start() -> nn.Module:
    """The network before training, laid out as the machine likes it best."""
    return build("u2netp").to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def losses(
    network: nn.Module, part: str, seed: int, indices: range, along: float
) -> dict[str, torch.Tensor]:
    """Cross-entropy of the fused map and the six side maps, added up (U²-Net, equation 1)."""
    assert isinstance(network, U2Net)
    pixels, truth = _batch(seed, indices, side_of(seed, indices.start // BATCH, along))
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.logits(pixels)
    each = [F.binary_cross_entropy_with_logits(logit.float(), truth) for logit in maps]
    return {"total": torch.stack(each).sum(), "fused": each[0].detach()}


def side_of(seed: int, step: int, along: float = 0.0) -> int:
    """Side in pixels of the pictures of a step, the same for all workers."""
    rng = rng_for(seed, "pocket-u2netp", "side", step)
    sides = SIDES if along < LAST else LAST_SIDES
    return int(rng.choice(list(sides), p=list(sides.values())))


def _batch(seed: int, indices: range, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prepared pictures (N, 3, side, side) and masks (N, 1, side, side) in [0, 1]."""
    seen = [training_sighting(seed, index, side) for index in indices]
    pixels = torch.from_numpy(np.stack([prepared(one.image) for one in seen]))
    masks = torch.from_numpy(np.stack([one.mask for one in seen]))
    return pixels.contiguous(memory_format=torch.channels_last), masks[:, None].float() / 255


RECIPE = Recipe(
    name="pocket_u2netp",
    build=start,
    losses=losses,
    generator_digest=generator_digest,
    batch=BATCH,
    parts=(("", 1.0),),
)
