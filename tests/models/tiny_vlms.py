"""Vision-language models too small to know anything: real classes, random weights, in memory.

Each comes with a batch of two prompts, the second padded on its left, as `generate` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

IMAGE = 5
"""The id of a visual token."""
PATCH, SIDE, TILE = 14, 56, 28
VOCABULARY = 60

_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Tiny:
    """A model, its inputs for two prompts, and where their visual tokens lie."""

    model: Any
    inputs: dict[str, torch.Tensor]

    @property
    def ids(self) -> torch.Tensor:
        return self.inputs["input_ids"]

    @property
    def flags(self) -> torch.Tensor:
        """bool (2, L): some visual tokens of each prompt, other ones in the second.

        For InstructBLIP (2, 17): some keys of the Q-Former.
        """
        visual = self.ids == self.model.config.image_token_id
        if self.model.config.model_type == "instructblip":
            visual = torch.ones(2, 17, dtype=torch.bool)
        order = visual.cumsum(1)
        some = (order >= torch.tensor([[2], [4]])) & (order <= torch.tensor([[5], [6]]))
        return visual & some

    def row(self, index: int) -> dict[str, torch.Tensor]:
        """One prompt alone, without the padding."""
        kept = self.inputs["attention_mask"][index].bool()
        mine = {}
        for name, tensor in self.inputs.items():
            if name == "pixel_values" and len(tensor) != 2:  # Qwen: patches of all pictures
                mine[name] = tensor.chunk(2)[index]
            else:
                mine[name] = tensor[index : index + 1]
                if tensor.ndim == 2 and tensor.shape == self.ids.shape:
                    mine[name] = mine[name][:, kept]
        return mine


def llava(seed: int = 0) -> Tiny:
    """LLaVA-1.5: 4 × 4 visual tokens."""
    config = AutoConfig.for_model(
        "llava",
        vision_config=_VISION | {"model_type": "clip_vision_model", "image_size": SIDE},
        text_config=_TEXT | {"model_type": "llama"},
        image_token_index=IMAGE,
        image_seq_length=16,
    )
    return Tiny(_net(config, seed), _prompts(16) | {"pixel_values": _noise(2, 3, SIDE, SIDE)})


def llava_next(seed: int = 0) -> Tiny:
    """LLaVA-NeXT: a base view of 2 × 2 and a canvas of 2 × 4 with its line ends: 14 tokens."""
    config = AutoConfig.for_model(
        "llava_next",
        vision_config=_VISION | {"model_type": "clip_vision_model", "image_size": TILE},
        text_config=_TEXT | {"model_type": "mistral", "sliding_window": None, "head_dim": 8},
        image_token_index=IMAGE,
        image_seq_length=4,
        image_grid_pinpoints=[[TILE, 2 * TILE]],
    )
    pictures = {
        "pixel_values": _noise(2, 3, 3, TILE, TILE),
        "image_sizes": torch.tensor([[TILE, 2 * TILE]] * 2),
    }
    return Tiny(_net(config, seed), _prompts(14) | pictures)


def qwen(kind: str = "qwen2_5_vl", seed: int = 0) -> Tiny:
    """A Qwen-VL: 3 × 4 visual tokens."""
    from tests.models import tiny_qwen

    tokenizer = tiny_qwen.build_tokenizer()
    model = tiny_qwen.build_model(tokenizer, kind=kind, seed=seed)
    grid, patch = torch.tensor([[1, 6, 8]] * 2), model.config.vision_config.patch_size
    inputs = _prompts(12, model.config.image_token_id, framed=model.config.vision_start_token_id)
    pixels = _noise(2 * 48, 3 * 2 * patch * patch)
    types = (inputs["input_ids"] == model.config.image_token_id).int()
    extra = {"pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": types}
    return Tiny(model, inputs | extra)


def instructblip(seed: int = 0, **qformer: Any) -> Tiny:
    """InstructBLIP: 1 + 4 × 4 keys in the Q-Former, 3 query tokens, two of whose layers look."""
    asked = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "initializer_range": 0.2,
    }
    config = AutoConfig.for_model(
        "instructblip",
        vision_config=_VISION | {"image_size": SIDE},
        qformer_config=asked | qformer,
        text_config=_TEXT | {"model_type": "llama"},
        num_query_tokens=3,
        image_token_index=IMAGE,
        initializer_range=0.2,
    )
    words = torch.tensor([[7, 8, 9, 10], [11, 12, 13, 14]])
    extra = {
        "pixel_values": _noise(2, 3, SIDE, SIDE),
        "qformer_input_ids": words,
        "qformer_attention_mask": torch.ones_like(words),
    }
    return Tiny(_net(config, seed), _prompts(3) | extra)


def _net(config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).eval()
    for part in (model, getattr(model, "language_model", None)):
        if part is not None:
            part.generation_config.eos_token_id = None  # every reply is as long as it may be
            part.generation_config.pad_token_id = 0
    return model


def _prompts(visual: int, mark: int = IMAGE, framed: int | None = None) -> dict[str, torch.Tensor]:
    """Ids and mask (2, L): words, a picture, words; the second prompt is two words shorter."""
    start = [framed] if framed is not None else []
    first = [11, 12, 13, *start, *[mark] * visual, 21, 22, 23, 24]
    second = [31, *start, *[mark] * visual, 41, 42, 43, 44]
    ids = torch.tensor([first, [0, 0, *second]])
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))
