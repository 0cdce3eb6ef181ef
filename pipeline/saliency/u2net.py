"""U²-Net and U²-NetP: a nested U of residual U-blocks that says how salient each pixel is.

Holds the network, its checkpoints and batched inference. State-dict keys are those of the published
network (Qin et al. 2020, figure 5 and table 1). Knows nothing of files of pictures or of resizing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models import weights

Variant = Literal["u2net", "u2netp"]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours, after division by the picture's largest value."""
SIDE = 320
"""Side of what the published networks were trained on, pixels."""

_SMALL: tuple[tuple[int, int, int], ...] = (
    (3, 16, 64),
    *((64, 16, 64),) * 5,
    *((128, 16, 64),) * 5,
)
_LARGE: tuple[tuple[int, int, int], ...] = (
    *((3, 32, 64), (64, 32, 128), (128, 64, 256), (256, 128, 512), (512, 256, 512)),
    *((512, 256, 512), (1024, 256, 512), (1024, 128, 256), (512, 64, 128), (256, 32, 64)),
    (128, 16, 64),
)
_CHANNELS = {"u2net": _LARGE, "u2netp": _SMALL}
"""(in, middle, out) of each of `_STAGES`."""
_STAGES = (*(f"stage{n}" for n in range(1, 7)), *(f"stage{n}d" for n in range(5, 0, -1)))
_DEPTHS = (7, 6, 5, 4, 0, 0, 0, 4, 5, 6, 7)
"""Layers of each stage's block; 0 is the dilated block."""
_DILATED = 4
"""Layers of the dilated block."""


class U2Net(nn.Module):
    """(N, 3, H, W) of any size -> seven maps (N, 1, H, W) in [0, 1]; the fused one comes first."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        channels = _CHANNELS[variant]
        for name, depth, (wide, narrow, out) in zip(_STAGES, _DEPTHS, channels, strict=True):
            self.add_module(name, Block(depth, wide, narrow, out))
        sides = [channels[_STAGES.index(f"stage{n}d")][2] for n in range(1, 6)] + [channels[5][2]]
        for number, width in enumerate(sides, start=1):
            self.add_module(f"side{number}", nn.Conv2d(width, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Fused map and side maps 1 to 6."""
        return tuple(torch.sigmoid(logit) for logit in self.logits(pixels))

    def logits(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """What `forward` puts through the sigmoid."""
        levels: list[Tensor] = []
        for number in range(1, 7):
            here = _halved(levels[-1]) if levels else pixels
            levels.append(self.get_submodule(f"stage{number}")(here))
        decoded = [levels[5]]
        for number in range(5, 0, -1):
            skip = levels[number - 1]
            both = torch.cat((_as(decoded[-1], skip), skip), 1)
            decoded.append(self.get_submodule(f"stage{number}d")(both))
        told = [self.get_submodule(f"side{n}")(decoded[-n]) for n in range(1, 7)]
        sides = [_as(side, told[0]) for side in told]
        return self.outconv(torch.cat(sides, 1)), *sides


class Block(nn.Module):
    """A residual U-block (RSU): a small U-Net whose result is added to its first layer's.

    With `depth` 0 it is the block without pooling, whose layers see further by dilation (RSU-4F).
    """

    def __init__(self, depth: int, wide: int, narrow: int, out: int) -> None:
        super().__init__()
        self.depth, self.pooled = depth or _DILATED, depth > 0
        spread = [1] * (self.depth - 1) + [2] if self.pooled else [1, 2, 4, 8]
        self.rebnconvin = Layer(wide, out, 1)
        for number, dilation in enumerate(spread, start=1):
            layer = Layer(out if number == 1 else narrow, narrow, dilation)
            self.add_module(f"rebnconv{number}", layer)
        for number in range(self.depth - 1, 0, -1):
            layer = Layer(2 * narrow, out if number == 1 else narrow, spread[number - 1])
            self.add_module(f"rebnconv{number}d", layer)

    def forward(self, pixels: Tensor) -> Tensor:
        first = self.rebnconvin(pixels)
        levels = [self.get_submodule("rebnconv1")(first)]
        for number in range(2, self.depth + 1):
            halve = self.pooled and number < self.depth
            here = _halved(levels[-1]) if halve else levels[-1]
            levels.append(self.get_submodule(f"rebnconv{number}")(here))
        deeper = levels.pop()
        for number in range(self.depth - 1, 0, -1):
            skip = levels.pop()
            both = torch.cat((_as(deeper, skip), skip), 1)
            deeper = self.get_submodule(f"rebnconv{number}d")(both)
        return deeper + first


class Layer(nn.Module):
    """Convolution 3 × 3, batch norm, ReLU."""

    def __init__(self, wide: int, out: int, dilation: int) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(wide, out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out)

    def forward(self, pixels: Tensor) -> Tensor:
        return F.relu(self.bn_s1(self.conv_s1(pixels)))


class Saliency:
    """A network on a device, ready to say how salient the pixels of prepared pictures are."""

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        """`dtype` is that of the layers: float32 on a CPU, else bfloat16, unless it is given."""
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        network = network.eval().to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._run = torch.compile(self.network) if compiled else self.network

    @torch.inference_mode()
    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Fused maps float32 (N, H, W) in [0, 1] of prepared pictures, float32 (N, 3, H, W).

        On a CPU picture by picture: what a picture gets does not depend on the others.
        """
        if not len(batch):
            return np.zeros((0, *batch.shape[2:]), np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
        if self.device.type == "cpu":
            return torch.cat([self._fused(one) for one in pixels.split(1)]).numpy()
        return self._fused(pixels).cpu().numpy()

    def _fused(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        low = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if low else None, enabled=low):
            return self._run(pixels)[0][:, 0].float()


def build(variant: Variant = "u2netp") -> U2Net:
    """The network with random weights; `ModelError` for a variant that does not exist."""
    if variant not in _CHANNELS:
        raise ModelError(f"There is no network '{variant}'.", f"Known: {', '.join(_CHANNELS)}.")
    return U2Net(variant)


def load(checkpoint: str | Path = "pocket-u2netp", variant: Variant | None = None) -> U2Net:
    """The network of a shipped, a pulled or a given checkpoint, in eval mode, float32.

    The variant is told by the weights unless it is given. `ModelError` where the file is missing,
    cannot be read, or holds another network.
    """
    path = weights.find(checkpoint)
    state = _plain(_read(path), path)
    first = state.get("stage1.rebnconv1.conv_s1.weight")
    found: Variant = "u2netp" if first is not None and first.shape[0] == 16 else "u2net"
    network = build(variant or found)
    counts = {n: b for n, b in network.state_dict().items() if n.endswith("num_batches_tracked")}
    try:
        network.load_state_dict(counts | state)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not hold the weights of {variant or found}.", str(error).split("\n")[1]
        ) from error
    return network.eval()


def prepared(picture: np.ndarray) -> np.ndarray:
    """A picture (uint8 HWC, RGB) as the network takes it, float32 (3, H, W), at its own size.

    Divided by its largest value unless it is black, then by mean and deviation.
    """
    pixels = picture.astype(np.float32) / max(1, int(picture.max()))
    standard = (pixels - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(standard.transpose(2, 0, 1))


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file: safetensors, ONNX, or what `torch.save` wrote, without running it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".onnx":
            from pipeline.saliency.u2net_onnx import read_state

            return read_state(path)
        read = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path} cannot be read: {error}".split("\n")[0]) from error
    return read.get("state_dict", read) if isinstance(read, dict) else {}


def _plain(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under the network's own names, float32."""
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{path} holds no state dict of tensors.")
    named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {n: t.float() if t.is_floating_point() else t for n, t in named.items()}


def _halved(pixels: Tensor) -> Tensor:
    return F.max_pool2d(pixels, 2, stride=2, ceil_mode=True)


def _as(small: Tensor, like: Tensor) -> Tensor:
    """Enlarged to the height and width of another map."""
    if small.shape[2:] == like.shape[2:]:
        return small
    return F.interpolate(small, size=like.shape[2:], mode="bilinear", align_corners=False)
