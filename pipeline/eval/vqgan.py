"""VQGAN: pictures as codes of a codebook, and codes as pictures again.

Owns the network, whose state-dict keys are those of the published one (muse's VQGANModel), and its
folders. Knows nothing of picture files, of prompts, or of where codes are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import isqrt
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ConfigError, ModelError
from pipeline.eval.lavm_config import GROUPS, VqganConfig, read_json
from pipeline.models.generation import first_line
from pipeline.models.weights import sha256_of

WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
"""Names of a folder's weights: the first that is there is read."""

_EPSILON = 1e-6


def build(config: Mapping[str, Any] | VqganConfig) -> Vqgan:
    """The network with random weights; raises `ConfigError` for a config that cannot be."""
    return Vqgan(VqganConfig.of(config))


def load(folder: str | Path) -> Vqgan:
    """The network of a folder with a config.json and weights, in eval mode, float32.

    `ConfigError` where there is no such folder, `ModelError` for weights that are not the config's.
    """
    path = weights_in(folder)
    with torch.device("meta"):
        network = build(read_json(path.parent))
    state = read_state(path)
    check_state(state, network.state_dict(), path)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return network.eval()


def digest(folder: str | Path) -> str:
    """SHA-256 (hex) of a folder's config and weights: tells its codes from all others."""
    path = weights_in(folder)
    config = json.dumps(asdict(VqganConfig.of(read_json(path.parent))), sort_keys=True)
    return hashlib.sha256(f"{config}\n{sha256_of(path)}".encode()).hexdigest()


def weights_in(folder: str | Path) -> Path:
    """The file of weights of a folder; raises `ConfigError` where there is none."""
    place = Path(folder).expanduser()
    found = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if found is None:
        raise ConfigError(
            f"{place} is no VQGAN's folder: it has none of {', '.join(WEIGHTS)}.",
            "Give the folder with config.json and weights.",
        )
    return found


def to_images(x: Tensor) -> np.ndarray:
    """Pictures as they are saved, uint8 (B, H, W, 3): clamped to [0, 1], then truncated."""
    levels = (255 * x.detach().float().clamp(0, 1)).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


class Vqgan(nn.Module):
    """The network; gradients flow through `latent`, `lookup` and `paint`, not through codes."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.num_embeddings, config.quantized_embed_dim)
        self.quant_conv = nn.Conv2d(config.z_channels, config.quantized_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.quantized_embed_dim, config.z_channels, 1)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes of pictures, int64 (B, tokens) row by row.

        `x` is float (B, 3, H, W) in [0, 1]; raises `ConfigError` for sides that do not divide.
        """
        return self.codes(self.latent(x))

    @torch.no_grad()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Pictures of codes (B, tokens), float (B, 3, H, W): about [0, 1], not clamped.

        `grid` is (rows, columns): a square unless it is given. Raises `ConfigError`.
        """
        return self.paint(self.lookup(ids, grid))

    def latent(self, x: Tensor) -> Tensor:
        """What is to be quantised, (B, D, H / factor, W / factor)."""
        if x.ndim != 4 or any(side % self.config.factor or not side for side in x.shape[2:]):
            raise ConfigError(f"Sides of {tuple(x.shape)} do not divide by {self.config.factor}.")
        return self.quant_conv(self.encoder(x))

    def codes(self, latent: Tensor) -> Tensor:
        """The nearest code of each place, int64 (B, tokens): the lower of two equally near."""
        table = self.quantize.embedding.weight
        squares = table.square().sum(1)
        found = []
        for one in latent.flatten(2).transpose(1, 2):  # a whole batch's distances are gigabytes
            distances = torch.addmm(squares, one, table.T, alpha=-2)
            found.append((distances + one.square().sum(1, keepdim=True)).argmin(1))
        return torch.stack(found) if found else latent.new_zeros(0, 0, dtype=torch.long)

    def lookup(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes (B, tokens) as vectors, (B, D, rows, columns)."""
        count = ids.shape[1]
        rows, columns = grid or (isqrt(count), isqrt(count))
        if rows * columns != count:
            raise ConfigError(f"{count} codes do not fill {rows} × {columns} places.")
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.num_embeddings:
            raise ConfigError(
                f"Codes {int(ids.min())}..{int(ids.max())} are not in a codebook of "
                f"{self.config.num_embeddings}.",
                "The tokenizer is not the one that the model was trained with.",
            )
        return self.quantize.embedding(ids.long()).mT.unflatten(2, (rows, columns))

    def paint(self, latent: Tensor) -> Tensor:
        """Pictures from quantised vectors (B, D, rows, columns), float (B, 3, H, W)."""
        return self.decoder(self.post_quant_conv(latent))


class Codebook(nn.Module):
    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width)
        nn.init.uniform_(self.embedding.weight, -1 / count, 1 / count)


class Encoder(nn.Module):
    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        widths, last = config.widths, len(config.channel_mult) - 1
        self.conv_in = _conv(config.num_channels, widths[0])
        self.down = nn.ModuleList()
        for number, (before, width) in enumerate(pairwise(widths)):
            level = Level([before, *[width] * config.num_res_blocks], config, number)
            if number < last:
                level.downsample = Halve(width, config.resample_with_conv)
            self.down.append(level)
        self.mid = Middle(widths[-1], config)
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], config.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        widths = config.widths[1:]
        self.conv_in = _conv(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1], config)
        self.up = nn.ModuleList()
        for number, (width, before) in enumerate(pairwise((*widths, widths[-1]))):
            level = Level([before, *[width] * (config.num_res_blocks + 1)], config, number)
            if number:
                level.upsample = Double(width, config.resample_with_conv)
            self.up.append(level)
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv(widths[0], config.num_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks from each width to the next, attention after each, then another size."""

    def __init__(self, widths: Sequence[int], config: VqganConfig, number: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(*pair, config.dropout) for pair in pairwise(widths))
        attending = widths[1:] if config.attends(number) else []
        self.attn = nn.ModuleList(Attention(width) for width in attending)
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.block):
            x = block(x)
            if len(self.attn) > 1:  # the published network has a lone one but does not run it
                x = self.attn[number](x)
        resize = self.downsample or self.upsample
        return resize(x) if resize else x


class Middle(nn.Module):
    def __init__(self, width: int, config: VqganConfig) -> None:
        super().__init__()
        self.block_1 = Residual(width, width, config.dropout)
        self.attn_1 = None if config.no_attn_mid_block else Attention(width)
        self.block_2 = Residual(width, width, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block_1(x)
        return self.block_2(self.attn_1(x) if self.attn_1 else x)


class Residual(nn.Module):
    def __init__(self, before: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(before), _conv(before, width)
        self.norm2, self.conv2 = _norm(width), _conv(width, width)
        self.dropout = nn.Dropout(dropout)
        self.nin_shortcut = None if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.conv1(F.silu(self.norm1(x)))
        inside = self.conv2(self.dropout(F.silu(self.norm2(inside))))
        return inside + (self.nin_shortcut(x) if self.nin_shortcut else x)


class Attention(nn.Module):
    """Every place attends to every other, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2).mT[:, None] for part in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(seen.mT.reshape(x.shape))


class Halve(nn.Module):
    def __init__(self, width: int, learned: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1))) if self.conv else F.avg_pool2d(x, 2)


class Double(nn.Module):
    def __init__(self, width: int, learned: bool) -> None:
        super().__init__()
        self.conv = _conv(width, width) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x) if self.conv else x


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise `ModelError`, naming the first, where names or shapes are not those wanted."""
    for name in (*wanted, *state):
        found, right = _shape(state, name), _shape(wanted, name)
        if found != right:
            raise ModelError(
                f"{path} does not hold the weights of its config: '{name}' is "
                f"{found or 'missing'}, not {right or 'known'}."
            )


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file: safetensors, or what `torch.save` wrote, without running it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        read = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(read, dict) or not all(isinstance(t, Tensor) for t in read.values()):
        raise ModelError(f"{path} holds no state dict of tensors.")
    return read


def _conv(before: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, padding=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, _EPSILON)
