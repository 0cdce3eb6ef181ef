"""What an agent's looks cost when the model goes on from what it has read, against reading anew.

Both sides in one run, on the same conversations, with a Qwen2.5-VL of random weights that is large
enough for its arithmetic to count (4 M numbers in the language model, 1 M in the vision tower).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.models import qwen_vl  # noqa: E402
from pipeline.models.generation import Generated  # noqa: E402
from pipeline.models.qwen_prompt import Message  # noqa: E402
from tests.bench.test_row_cost import report  # noqa: E402
from tests.models import tiny_qwen  # noqa: E402
from tests.models.test_qwen_vl import picture  # noqa: E402
from tests.models.watched_qwen import grown, plain, watching  # noqa: E402

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(600)]

TEXT = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 5,
    "layer_types": ["full_attention"] * 5,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "depth": 4,
    "num_heads": 4,
    "out_hidden_size": 256,
    "fullatt_block_indexes": [3],
}
VIEW = (448, 448)
CROP = (336, 336)
LOOKS = 3
DRAWN = 12
"""Tokens of a reply."""
ROWS = 2
"""Conversations of a batch."""


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qwen_vl.QwenVl]:
    from transformers import AutoModelForImageTextToText

    folder: Path = tmp_path_factory.mktemp("qwen")
    tokenizer = tiny_qwen.build_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_qwen.write_image_settings(folder)
    small = tiny_qwen.build_model(tokenizer)
    told = small.config.to_dict()
    told["text_config"] |= TEXT
    told["vision_config"] |= VISION
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(type(small.config).from_dict(told))
    model.generation_config = small.generation_config
    model.save_pretrained(folder)
    threads = torch.get_num_threads()
    yield qwen_vl.load(folder, keep_tokens=0)
    torch.set_num_threads(threads)


def opening(number: int) -> list[Message]:
    asked = (picture(*VIEW, number), f"What is written on tag {number}?")
    return [Message("system", ("Look closer, then answer.",)), Message("user", asked)]


def asked(replies: Sequence[Sequence[Generated]]) -> Iterator[list[list[Message]]]:
    """The rows' conversations at the opening and after each look; `replies` grows meanwhile."""
    rows = [opening(number) for number in range(ROWS)]
    yield rows
    for look in range(LOOKS):
        said = zip(rows, replies[-1], strict=True)
        rows = [grown(row, reply.text, CROP, 10 * look + n) for n, (row, reply) in enumerate(said)]
        yield rows


def episode(
    model: qwen_vl.QwenVl, answer: Callable[[list[list[Message]]], list[Generated]]
) -> tuple[list[list[Generated]], dict[str, float]]:
    """All replies, and what they took: tokens read before the first is drawn, patches, seconds."""
    replies: list[list[Generated]] = []
    with watching(model) as watched:
        begun = time.process_time()
        for rows in asked(replies):
            replies.append(answer(rows))
        spent = time.process_time() - begun
    read = sum(said.tokens_in - said.tokens_cached for step in replies for said in step)
    return replies, {"prefilled": read, "patches": watched.patches, "cpu_s": spent}


def test_three_looks_with_and_without_what_was_read(forgetful: qwen_vl.QwenVl) -> None:
    def keeping() -> qwen_vl.QwenVl:
        return qwen_vl.QwenVl(forgetful.model, forgetful.encoder, forgetful.name)

    def alone(model: qwen_vl.QwenVl) -> Callable[[list[list[Message]]], list[Generated]]:
        return lambda rows: [model.generate(row, max_tokens=DRAWN) for row in rows]

    def together(model: qwen_vl.QwenVl) -> Callable[[list[list[Message]]], list[Generated]]:
        return lambda rows: model.generate_batch(rows, max_tokens=DRAWN)

    forgetful.generate(opening(99), max_tokens=2)  # warm up
    ways: dict[str, Any] = {
        "anew": alone(forgetful),
        "reuse": alone(keeping()),
        "anew_batch": together(forgetful),
        "reuse_batch": together(keeping()),
    }
    figures: dict[str, dict[str, float]] = {}
    texts: dict[str, list[list[Generated]]] = {}
    for name, answer in ways.items():
        replies, figures[name] = episode(forgetful, answer)
        texts[name] = [[plain(said) for said in step] for step in replies]
    flat = {f"{way}_{what}": n for way, told in figures.items() for what, n in told.items()}
    anew, reuse = figures["anew"], figures["reuse"]
    report(
        "kv_reuse",
        rows=ROWS,
        looks=LOOKS,
        **flat,
        fewer_prefilled=anew["prefilled"] / reuse["prefilled"],
        fewer_cpu_s=anew["cpu_s"] / reuse["cpu_s"],
        fewer_cpu_s_batch=figures["anew_batch"]["cpu_s"] / figures["reuse_batch"]["cpu_s"],
        same=int(texts["reuse"] == texts["anew_batch"] == texts["reuse_batch"] == texts["anew"]),
    )
    assert texts["reuse"] == texts["anew"]
    assert anew["prefilled"] >= 2 * reuse["prefilled"]
