"""The training recipe of the pocket VQGAN: drawn scenes and their frames, a folder as published.

Without an adversary: scenes of flat things need none. Codes that fall out of use are moved to where
the encoder's vectors are, and at the end those that are alike are made one: else the black around a
thing has a hundred codes, and a LAVM has to guess which.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.eval.lavm_config import VqganConfig
from pipeline.eval.pocket_lavm_scenes import SIDE, generator_digest, training_frame
from pipeline.eval.vqgan import Vqgan, build
from pipeline.models.pocket_training import Plan, Recipe
from pipeline.models.pocket_training import train as train_recipe

CONFIG = VqganConfig(
    resolution=SIDE,
    num_channels=3,
    hidden_channels=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attn_resolutions=(),
    no_attn_mid_block=True,
    z_channels=32,
    num_embeddings=512,
    quantized_embed_dim=16,
)
CODES = 96
SETTLED = replace(CONFIG, num_embeddings=CODES)
"""What is shipped: codes that are alike are one."""
SETTLING = 200
"""Pictures on which uses of codes are counted at the end."""
BATCH = 32
UNUSED = 0.1
"""Codes used less often than this, in the running mean of uses per step, are moved."""
MOVING = 0.8
"""Share of the schedule after which no code is moved any more."""


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 25.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the tokenizer's folder in it."""
    made = train_recipe(RECIPE, out, Plan(seed, minutes, images), workers=workers)
    return settle(made, Path(out) / "vqgan", seed)


def settle(made: Path, folder: Path, seed: int, pictures: int = SETTLING) -> Path:
    """A tokenizer's folder from the trained weights, with `CODES` of their codes left."""
    with safe_open(made, "pt") as file:
        metadata = file.metadata()
    state = load_file(made)
    network = build(CONFIG)
    network.load_state_dict(state)
    drawn = np.stack([training_frame(seed, index) for index in range(pictures)])
    ids = network.encode(torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255)
    uses = torch.bincount(ids.flatten(), minlength=CONFIG.num_embeddings)
    table = state["quantize.embedding.weight"]
    state["quantize.embedding.weight"] = merged(table, uses, CODES).to(table.dtype)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(SETTLED), indent=1) + "\n", "utf-8")
    save_file(state, folder / "model.safetensors", metadata)
    return folder


def merged(table: Tensor, uses: Tensor, count: int) -> Tensor:
    """`count` codes of a table (N, D): the two nearest become their mean, again and again."""
    codes, weights = table.double(), uses.double() + 0.01  # one that is never used has a place, too
    while len(codes) > count:
        apart = torch.cdist(codes, codes).fill_diagonal_(torch.inf)
        one, other = sorted(divmod(int(apart.argmin()), len(codes)))
        both = weights[one] + weights[other]
        codes[one] = (codes[one] * weights[one] + codes[other] * weights[other]) / both
        weights[one] = both
        left = torch.arange(len(codes)) != other
        codes, weights = codes[left], weights[left]
    return codes


def start() -> nn.Module:
    """The network before training, and how often each code is used."""
    network = build(CONFIG)
    nn.init.normal_(network.quantize.embedding.weight, std=0.5)
    network.register_buffer("uses", torch.ones(CONFIG.num_embeddings), persistent=False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def losses(
    network: nn.Module, part: str, seed: int, indices: range, along: float
) -> dict[str, Tensor]:
    """Absolute and squared error of the pictures, and how far codes and vectors are apart.

    Codes learn from the vectors they stand for, and these from their codes at `commitment_cost`
    (VQ-VAE, equation 3); the picture's gradient goes past the choice of codes.
    """
    assert isinstance(network, Vqgan)
    drawn = np.stack([training_frame(seed, index) for index in indices])
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
    latent = network.latent(pixels)
    with torch.no_grad():
        ids = network.codes(latent)
        if along < MOVING:
            _move_unused(network, latent, ids)
            ids = network.codes(latent)
    chosen = network.lookup(ids)
    painted = network.paint(latent + (chosen - latent).detach())
    near = F.mse_loss(chosen, latent.detach())
    committed = F.mse_loss(latent, chosen.detach())
    picture = F.l1_loss(painted, pixels) + 4 * F.mse_loss(painted, pixels)
    total = picture + near + network.config.commitment_cost * committed
    used = (network.get_buffer("uses") > UNUSED).sum()
    return {"total": total, "picture": picture.detach(), "used": used}


def _move_unused(network: Vqgan, latent: Tensor, ids: Tensor) -> None:
    """Count uses, and move codes that have none to vectors of this batch; alike in all workers."""
    uses = network.get_buffer("uses")
    now = torch.bincount(ids.flatten(), minlength=len(uses)).float()
    dist.all_reduce(now)
    uses.lerp_(now, 0.02)
    unused = torch.nonzero(uses < UNUSED)[:, 0]
    vectors = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]).float()
    chosen = vectors[torch.randint(len(vectors), (len(unused),))]
    dist.broadcast(chosen, 0)
    network.quantize.embedding.weight[unused] = chosen
    uses[unused] = 1.0


RECIPE = Recipe(
    name="pocket_vqgan",
    build=start,
    losses=losses,
    generator_digest=generator_digest,
    batch=BATCH,
    parts=(("", 1.0),),
)
