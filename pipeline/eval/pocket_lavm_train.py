"""The training recipe of the pocket LAVM: a Llama that continues visual sentences of drawn scenes.

Its tokens are the pocket VQGAN's. Every sentence has a convention of its own, so what is learnt is
to read it off the exemplars, not which colour a class has.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.eval.lavm_config import translate
from pipeline.eval.pocket_lavm_scenes import FRAMES, generator_digest, training_sentence
from pipeline.eval.pocket_vqgan_train import SETTLED as TOKENIZER
from pipeline.eval.vqgan import Vqgan, load
from pipeline.models.pocket_training import Plan, Recipe
from pipeline.models.pocket_training import train as train_recipe
from pipeline.models.weights import POCKET_LAVM, sha256_of

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": TOKENIZER.num_embeddings,
    "codes": TOKENIZER.num_embeddings,
    "frame_tokens": TOKENIZER.tokens,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": FRAMES * TOKENIZER.tokens,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": True,
    "tie_word_embeddings": False,
}
"""With biases, as DeLVM's published models have them: drawn and cropped like these."""
BATCH = 16
SCENE, DECISIVE = 0.1, 10.0
"""Weights in the loss of a scene's codes and of those that decide; other codes of marks weigh 1."""


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 90.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the model's folder in it.

    Needs the pocket VQGAN that is shipped. `images` counts sentences.
    """
    made = train_recipe(RECIPE, out, Plan(seed, minutes, images), workers=workers)
    folder = Path(out) / POCKET_LAVM.name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", "utf-8")
    made.rename(folder / "model.safetensors")
    return folder


def start() -> nn.Module:
    """The network before training."""
    return LlamaForCausalLM(LlamaConfig(**translate(CONFIG).llama))


def losses(
    network: nn.Module, part: str, seed: int, indices: range, along: float
) -> dict[str, Tensor]:
    """Cross-entropy of the next code; also where the first and the last frame's marks are decided.

    How much less the last's is tells what is read off the exemplars.
    """
    read = sentences(seed, indices)
    codes = torch.from_numpy(read.codes)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(input_ids=codes, use_cache=False).logits
    each = F.cross_entropy(logits[:, :-1].float().mT, codes[:, 1:], reduction="none")
    weights = torch.from_numpy(read.weights)[:, 1:]
    total = (each * weights).sum() / weights.sum()
    first, last = (each[torch.from_numpy(place)[:, 1:]] for place in (read.first, read.last))
    return {"total": total, "first": first.mean().detach(), "last": last.mean().detach()}


@dataclass(frozen=True, slots=True)
class Read:
    """Sentences as codes; all arrays are (B, codes of the longest sentence)."""

    codes: np.ndarray
    """int64; 0 after a sentence's end."""
    weights: np.ndarray
    """float32; 0 after a sentence's end."""
    first: np.ndarray
    """bool: where the marks of the first frame are decided, which nothing tells."""
    last: np.ndarray
    """bool: where those of the answer are."""


def sentences(seed: int, indices: range) -> Read:
    """Training sentences as the network reads them."""
    drawn = [training_sentence(seed, index) for index in indices]
    pixels = torch.from_numpy(np.stack([frame for one in drawn for frame in one.frames]))
    codes = iter(_tokenizer().encode(pixels.permute(0, 3, 1, 2).float() / 255).numpy())
    shape = (len(drawn), FRAMES, TOKENIZER.tokens)
    told, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    first, last = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, sentence in enumerate(drawn):
        for place, decisive in enumerate(sentence.decisive):
            told[row, place] = next(codes)
            weights[row, place] = 1 if place % 2 else SCENE
            weights[row, place, decisive] = DECISIVE
        first[row, 1, sentence.decisive[1]] = True
        last[row, place, decisive] = True
    return Read(*(array.reshape(len(drawn), -1) for array in (told, weights, first, last)))


def data_digest() -> str:
    """SHA-256 (hex) of the generator and the tokenizer: tells what was learnt from all else."""
    files = sha256_of(POCKET_LAVM / "vqgan" / "model.safetensors")
    return hashlib.sha256(f"{generator_digest()}\n{files}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _tokenizer() -> Vqgan:
    return load(POCKET_LAVM / "vqgan")


RECIPE = Recipe(
    name="pocket_lavm",
    build=start,
    losses=losses,
    generator_digest=data_digest,
    batch=BATCH,
    parts=(("", 1.0),),
)
