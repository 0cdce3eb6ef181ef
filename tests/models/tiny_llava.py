"""A LLaVA-1.5, a LLaVA-NeXT and an InstructBLIP too small to know anything, made on the spot.

Real classes and random weights, in folders laid out like published ones: a LLaMA's tokenizer with
its bytes and its space before the first word, CLIP's or BLIP's image settings, the Q-Former's own
tokenizer in a folder of its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SIDE_PX, PATCH_PX = 56, 14
SIDE = SIDE_PX // PATCH_PX
"""Tokens along a side of the square that is seen."""
CANVASES = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
"""LLaVA-NeXT's, in squares of this size."""
QUERIES = 8
OWN = (
    "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}"
    "{{ p.text if p.type == 'text' else '<image>' }}{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""A chat template as a checkpoint might bring."""

_NORMAL = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_WORDS = """What is written on the red star in this picture? I look closer at the small tag.
A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT: [0.1, 0.2]
The assistant gives helpful, detailed, and polite answers to the user's questions. Yes, No."""


def build(folder: Path, kind: str = "llava", *, template: str | None = None, seed: int = 0) -> Path:
    """Write a LLaVA's folder; `kind` is the `model_type`."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    build_model(tokenizer, kind, seed=seed).save_pretrained(folder)
    square = {"height": SIDE_PX, "width": SIDE_PX}
    settings: dict[str, Any] = {"size": {"shortest_edge": SIDE_PX}, "crop_size": square, **_NORMAL}
    if kind == "llava_next":
        settings |= {
            "image_processor_type": "LlavaNextImageProcessor",
            "image_grid_pinpoints": CANVASES,
            "processor_class": "LlavaNextProcessor",
        }
    else:
        settings |= {
            "image_processor_type": "CLIPImageProcessor",
            "do_center_crop": True,
            "processor_class": "LlavaProcessor",
        }
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def build_instructblip(folder: Path, language: str = "llama", *, seed: int = 0) -> Path:
    """Write an InstructBLIP's folder; `language` is the `model_type` of what writes: or `t5`."""
    tokenizer, qformer = build_tokenizer(ends=language == "t5"), _bert_tokenizer()
    tokenizer.save_pretrained(folder)
    qformer.save_pretrained(folder / "qformer_tokenizer")
    _instructblip(tokenizer, len(qformer), language, seed).save_pretrained(folder)
    settings = {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": SIDE_PX, "width": SIDE_PX},
        "processor_class": "InstructBlipProcessor",
        **_NORMAL,
    }
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def build_tokenizer(*, ends: bool = False, scheme: str = "first") -> Any:
    """A LLaMA's kind of BPE on whole words, with `<image>`; `ends` adds what a T5's ends with.

    `scheme` is where a space is put before the first word: `first` of the text, or `always`, after
    each special token too, as older tokenizers do.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary, merges = _trained(names)
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    framed = "$A </s>" if ends else "<s> $A"
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names[:3]])
    backend.post_processor = processors.TemplateProcessing(
        single=framed, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=None if ends else "<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )


def _trained(names: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary that begins with `names`, and the merges of the words above."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=names, show_progress=False, limit_alphabet=100
    )
    backend.train_from_iterator(_WORDS.splitlines() * 4, trainer)
    learned = json.loads(backend.to_str())["model"]
    return learned["vocab"], [tuple(pair) for pair in learned["merges"]]


def _bert_tokenizer() -> Any:
    """A BERT's kind of whole words and letters.

    By hand: the library's trainer breaks ties in another order in each process, and then random
    weights say something else each time.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted(set(re.findall(r"\w+|[^\w\s]", _WORDS.lower())))
    letters = sorted({letter for word in words for letter in word})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    names += [word for word in words if len(word) > 1]
    vocabulary = {name: place for place, name in enumerate(names)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.add_special_tokens(names[:4])
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def build_model(tokenizer: Any, kind: str = "llava", *, seed: int = 0) -> Any:
    """A LLaVA's networks with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    more = {"image_grid_pinpoints": CANVASES} if kind == "llava_next" else {}
    config = AutoConfig.for_model(
        kind,
        text_config=_llama(len(tokenizer)),
        vision_config=_VISION | {"model_type": "clip_vision_model", "projection_dim": 32},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=SIDE * SIDE,
        **more,
    )
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return model.eval()


_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE_PX,
    "patch_size": PATCH_PX,
    "initializer_range": 0.2,
}


def _llama(tokens: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": tokens,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _t5(tokens: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": tokens,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 96,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_factor": 4.0,
    }


def _instructblip(tokenizer: Any, qformer_tokens: int, language: str, seed: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.for_model(
        "instructblip",
        text_config=(_t5 if language == "t5" else _llama)(len(tokenizer)),
        vision_config=_VISION,
        qformer_config={
            "vocab_size": qformer_tokens,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    torch.nn.init.normal_(model.query_tokens)
    return model.eval()
