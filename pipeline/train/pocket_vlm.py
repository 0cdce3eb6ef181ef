"""The training recipe of the pocket VLM: a Qwen3-VL, taught from nothing to see, point and zoom.

Questions and answers alone teach a small network no grounding. So the vision tower learns first
what each merged cell shows — shape, colour, mark, sides of the box — by heads that are thrown away;
then come questions for boxes, marks on close views, and whole conversations, in which a look is
taken where the mark cannot be read. What is trained here can be reinforced by `cofpipe train rl`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from pipeline.models.pocket_training import Plan, Recipe
from pipeline.models.pocket_training import train as train_recipe
from pipeline.models.vision_batches import batched_vision
from pipeline.train.pocket_vlm_batch import (
    MERGE,
    PATCH,
    Pictures,
    Words,
    pictures_of,
    targets_of,
    tokenizer,
    words_of,
)
from pipeline.train.pocket_vlm_chats import NONE, Cells, training_chat
from pipeline.train.pocket_vlm_scenes import COLORS, MARKS, SHAPES, generator_digest
from pipeline.train.pocket_vlm_words import SPECIAL, image_settings
from pipeline.train.rows import IGNORED

NAME = "pocket_vlm"
BATCH = 16
SEEING = 0.4
"""Share of the training in which the vision tower learns alone."""
WIDTH = 192
VISION: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 128,
    "num_heads": 4,
    "intermediate_size": 384,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
    "out_hidden_size": WIDTH,
    "num_position_embeddings": 256,
    "deepstack_visual_indexes": [],
}
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 8, 8]},
    "tie_word_embeddings": False,
}
KINDS = {"shape": len(SHAPES), "color": len(COLORS), "mark": len(MARKS)}
"""How many of each the heads tell apart."""


class PocketVlm(nn.Module):
    """The network, and heads on its visual tokens that only its training has."""

    def __init__(self, config: Qwen3VLConfig | None = None) -> None:
        super().__init__()
        self.qwen = Qwen3VLForConditionalGeneration(config or configuration())
        batched_vision(self.qwen)
        self.heads = nn.Linear(WIDTH, 1 + sum(KINDS.values()) + 4)

    def seen(self, pictures: Pictures) -> Tensor:
        """The visual tokens of all pictures, one after another, (cells, WIDTH)."""
        return self.qwen.model.visual(pictures.patches, grid_thw=pictures.grids).pooler_output

    def told(self, cells: Tensor) -> dict[str, Tensor]:
        """What the heads say of visual tokens, by name; `thing` and each kind are logits."""
        parts = [1, *KINDS.values(), 4]
        return dict(
            zip(("thing", *KINDS, "sides"), self.heads(cells).split(parts, -1), strict=True)
        )

    def logits(self, words: Words, pictures: Pictures, cells: Tensor) -> Tensor:
        """Logits of each token that is to be said, (taught tokens, vocabulary)."""
        counts = (pictures.grids.prod(-1) // MERGE**2).tolist()
        hidden = self.qwen.model(
            input_ids=words.ids,
            attention_mask=words.there,
            mm_token_type_ids=words.visual,
            image_grid_thw=pictures.grids,
            mm_encoder_outputs={"image": _Encoded(cells.split(counts))},
            use_cache=False,
        ).last_hidden_state
        return self.qwen.lm_head(hidden[:, :-1][words.labels[:, 1:] != IGNORED])


class _Encoded:
    """Pictures that were encoded already, in transformers' names."""

    def __init__(self, cells: tuple[Tensor, ...]) -> None:
        self.pooler_output = cells
        self.deepstack_features: list[Tensor] = []


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 180.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the model's folder in it.

    It is laid out as published ones are. `images` counts conversations.
    """
    made = train_recipe(RECIPE, out, Plan(seed, minutes, images), workers=workers)
    return save(load_weights(made), Path(out) / NAME)


def configuration(**smaller: int) -> Qwen3VLConfig:
    """The architecture with the tokenizer's ids; `smaller` settings of the language model."""
    words = tokenizer()
    ids = {token: int(words.convert_tokens_to_ids(token)) for token in SPECIAL}
    text = (
        TEXT
        | smaller
        | {
            "vocab_size": len(words),
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        }
    )
    return Qwen3VLConfig(
        text_config=text,
        vision_config=VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def losses(
    network: nn.Module, part: str, seed: int, indices: range, along: float
) -> dict[str, Tensor]:
    """What the cells show and, once the tower has learnt alone, what the assistant says.

    Also shares of kinds, boxes (mean IoU) and tokens that are right, of what is to be told.
    """
    assert isinstance(network, PocketVlm)
    chats = [training_chat(seed, index, along) for index in indices]
    pictures = pictures_of([view for chat in chats for view in chat.views])
    with torch.autocast("cpu", torch.bfloat16):
        cells = network.seen(pictures)
        told = network.told(cells)
    dense, figures = dense_losses({name: x.float() for name, x in told.items()}, targets_of(chats))
    if along < SEEING:
        return {"total": dense, **figures}
    words = words_of([(chat.messages, chat.views) for chat in chats])
    with torch.autocast("cpu", torch.bfloat16):
        logits = network.logits(words, pictures, cells).float()
    said = words.labels[:, 1:][words.labels[:, 1:] != IGNORED]
    spoken = F.cross_entropy(logits, said)
    right = (logits.argmax(-1) == said).float().mean()
    return {"total": dense + spoken, **figures, "words": spoken.detach(), "words_right": right}


def dense_losses(told: dict[str, Tensor], true: Cells) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of what cells are said to show, and figures of it."""
    shape, sides = torch.from_numpy(true.shape), torch.from_numpy(true.sides)
    there = shape != NONE
    thing = F.binary_cross_entropy_with_logits(told["thing"][:, 0], there.float())
    off = F.smooth_l1_loss(told["sides"][there], sides[there], beta=0.1)
    total = 10 * thing + 2 * off
    figures = {"thing": thing.detach(), "iou": _iou(told["sides"][there], sides[there])}
    for name, kinds in (("shape", shape), ("color", true.color), ("mark", true.mark)):
        kind = torch.as_tensor(kinds)
        loss = F.cross_entropy(told[name], kind, ignore_index=NONE, reduction="sum")
        known = (kind != NONE).sum().clamp(min=1)
        total = total + loss / known
        figures[name] = (told[name].argmax(-1) == kind)[kind != NONE].sum() / known
    return total, figures


def load_weights(path: Path) -> PocketVlm:
    """The network with the weights of a checkpoint that the training loop wrote."""
    from safetensors.torch import load_file

    network = PocketVlm()
    network.load_state_dict({name: x.float() for name, x in load_file(path).items()})
    return network.eval()


def save(network: PocketVlm, folder: Path) -> Path:
    """Write the model without its heads, with tokenizer and image settings; returns the folder.

    The weights become what fp16 holds of them, the network's own too.
    """
    words = tokenizer()
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(image_settings(), "utf-8")
    network.qwen.generation_config = GenerationConfig(
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id
    )
    network.qwen.half().save_pretrained(folder)
    network.qwen.float()
    return folder


def _iou(told: Tensor, true: Tensor) -> Tensor:
    """Mean overlap of boxes given by their sides about one point, both (N, 4)."""
    told = told.detach()
    shared = torch.minimum(told, true)
    over = (shared[:, :2] + shared[:, 2:]).clamp(min=0).prod(-1)
    areas = [(box[:, :2] + box[:, 2:]).clamp(min=0).prod(-1) for box in (told, true)]
    return (over / (areas[0] + areas[1] - over)).mean()


RECIPE = Recipe(
    name=NAME,
    build=PocketVlm,
    losses=losses,
    generator_digest=generator_digest,
    batch=BATCH,
    parts=(("", 1.0),),
    rate=1e-3,
)
