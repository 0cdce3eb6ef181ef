"""The pocket reader: a small network that reads one line of text and says how sure it is.

A convolutional recogniser gives each step along the line a distribution over characters (CTC); a
second part looks at what was decoded and says how likely the whole line is right. Too few pixels,
blur, odd letters and crops without text lower that chance by what was learned, not by a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pipeline.models import weights
from pipeline.scenes.lettering import CHARACTERS

HEIGHT = 32
"""Rows that every line is brought to."""
WIDTHS = (16, 400)
"""Fewest and most columns of a line; a longer one is squeezed."""
STRIDE = 16
"""A line's columns are filled up to a multiple of this."""
STEPS_PER_COLUMN = 0.5
"""Steps of the decoder for each column of the line."""
CLEAR = 0.93
"""Confidence from which on a reading counts: under one line in a hundred is then read wrongly."""
BLANK = 0
BATCH = 32
_LEAST_SPREAD = 4.0


@dataclass(frozen=True, slots=True)
class LineReading:
    """What a line says, and the chance that this is right."""

    text: str
    """The best guess, however unlikely; empty where there seems to be nothing to read."""
    confidence: float
    """Chance in [0, 1] that the whole text is right but for case and spaces; 0 for no text."""


class Reader:
    """The reader with its weights."""

    def __init__(self, network: PocketReader) -> None:
        self.network = network.eval()

    def read(self, lines: Sequence[np.ndarray]) -> list[LineReading]:
        """Read crops of single lines, each uint8 HWC; the answers are in the same order.

        A line's answer does not depend on which others are read with it, but for rounding.
        """
        prepared = [prepare(line) for line in lines]
        found: list[LineReading] = [LineReading("", 0.0)] * len(lines)
        by_width: dict[int, list[int]] = {}
        for place, line in enumerate(prepared):
            by_width.setdefault(line.shape[2], []).append(place)
        for places in by_width.values():
            for start in range(0, len(places), BATCH):
                some = places[start : start + BATCH]
                pixels = torch.from_numpy(np.stack([prepared[place] for place in some]))
                for place, reading in zip(some, self._read(pixels), strict=True):
                    found[place] = reading
        return found

    @torch.inference_mode()
    def _read(self, pixels: torch.Tensor) -> list[LineReading]:
        features, logits = self.network.recogniser(pixels)
        texts = decode(logits)
        chances = torch.sigmoid(self.network.confidence(features, logits, texts)).tolist()
        return [
            LineReading(text, chance if text else 0.0)
            for text, chance in zip(texts, chances, strict=True)
        ]


def load(checkpoint: str | Path = "pocket-reader") -> Reader:
    """The shipped reader, or one from a file; `ModelError` where there is none."""
    state = load_file(weights.find(checkpoint))
    network = PocketReader()
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return Reader(network)


def prepare(line: np.ndarray) -> np.ndarray:
    """A crop (uint8 HWC) as the network takes it: float32 (3, HEIGHT, W), W a multiple of STRIDE.

    Each colour has mean 0 and all three together a spread of 1, unless the crop is all but flat;
    columns that fill up on the right are 0.
    """
    height, width = line.shape[:2]
    wide = min(max(round(width * HEIGHT / height), WIDTHS[0]), WIDTHS[1])
    method = Image.Resampling.HAMMING if height > HEIGHT else Image.Resampling.BICUBIC
    pixels = np.asarray(Image.fromarray(line).resize((wide, HEIGHT), method), np.float32)
    pixels = pixels - pixels.mean((0, 1))
    pixels /= max(float(pixels.std()), _LEAST_SPREAD)
    out = np.zeros((3, HEIGHT, -(-wide // STRIDE) * STRIDE), np.float32)
    out[:, :, :wide] = pixels.transpose(2, 0, 1)
    return out


def decode(logits: torch.Tensor) -> list[str]:
    """The text of the likeliest path of each line; logits are (N, steps, classes)."""
    texts = []
    for path in logits.argmax(-1).tolist():
        kept = [c for c, before in zip(path, [BLANK, *path], strict=False) if c not in (before, 0)]
        texts.append(" ".join("".join(CHARACTERS[c - 1] for c in kept).split()))
    return texts


def encode(texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts as the CTC loss takes them: (all classes in a row, length of each)."""
    classes = [CHARACTERS.index(c) + 1 for text in texts for c in text]
    return torch.tensor(classes, dtype=torch.long), torch.tensor([len(text) for text in texts])


def same(read: str, said: str) -> bool:
    """Whether a reading is right: case and spaces cannot always be seen, so they do not count."""
    return _bare(read) == _bare(said)


def _bare(text: str) -> str:
    return "".join(text.casefold().split())


class PocketReader(nn.Module):
    """The recogniser and the confidence."""

    def __init__(self) -> None:
        super().__init__()
        self.recogniser = Recogniser()
        self.confidence = Confidence()


class Recogniser(nn.Module):
    """(N, 3, HEIGHT, W) -> features (N, C, W/4) and logits (N, W/2, classes)."""

    def __init__(self, channels: tuple[int, int, int, int] = (32, 48, 80, 184)) -> None:
        super().__init__()
        a, b, c, d = channels
        self.stem = nn.Sequential(_conv(3, a, 2), _conv(a, b, 2), Residual(b), Residual(b))
        self.middle = nn.Sequential(_conv(b, c, (2, 1)), Residual(c), Residual(c))
        self.fold = nn.Sequential(
            nn.Conv2d(c, d, (HEIGHT // 8, 1), bias=False), nn.BatchNorm2d(d), nn.ReLU()
        )
        self.along = nn.Sequential(*(Along(d, dilation) for dilation in (1, 2, 1)))
        self.classes = len(CHARACTERS) + 1
        self.head = nn.Conv1d(d, 2 * self.classes, 1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # a sixth faster
        features = self.fold(self.middle(self.stem(pixels))).squeeze(2)
        features = self.along(features)
        # Two steps for each column of features: narrow letters that repeat need the room.
        both = self.head(features).transpose(1, 2)
        return features, both.reshape(both.shape[0], -1, self.classes)


class Confidence(nn.Module):
    """The logit of the chance that a decoded line is right, from what the recogniser saw."""

    def __init__(self, channels: int = 184, kept: int = 24, hidden: int = 64) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv1d(channels, kept, 1), nn.ReLU())
        self.judge = nn.Sequential(
            nn.Linear(2 * kept + 7, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(
        self, features: torch.Tensor, logits: torch.Tensor, texts: Sequence[str]
    ) -> torch.Tensor:
        seen = self.look(features)
        facts = torch.cat([seen.mean(2), seen.amax(2), _certainty(logits, texts)], dim=1)
        return self.judge(facts).squeeze(1)


def _certainty(logits: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
    """How sure the recogniser itself is: (N, 7)."""
    chances = logits.log_softmax(-1)
    best, second = chances.topk(2, dim=-1).values.unbind(-1)
    targets, lengths = encode(texts)
    steps = torch.full((len(texts),), logits.shape[1])
    whole = -F.ctc_loss(
        chances.transpose(0, 1), targets, steps, lengths, reduction="none", zero_infinity=True
    )
    entropy = -(chances.exp() * chances).sum(-1)
    count = lengths.to(logits.dtype)
    return torch.stack(
        [
            whole.clamp(min=-30),
            whole.clamp(min=-30) / count.clamp(min=1),
            best.amin(1).clamp(min=-5),
            (best - second).amin(1).clamp(max=8),
            entropy.sum(1) / count.clamp(min=1),
            entropy.amax(1),
            count / 12,
        ],
        dim=1,
    )


def _conv(inward: int, outward: int, stride: int | tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, stride, 1, bias=False), nn.BatchNorm2d(outward), nn.ReLU()
    )


class Residual(nn.Module):
    """Two 3 × 3 convolutions around which the input passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels, 1),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class Along(nn.Module):
    """A convolution along the line around which the input passes."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, channels, 5, padding=2 * dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.relu(self.body(x))
