"""A training step with the vision tower batched, against the same step as transformers takes it.

Both in one process, step about, from the same weights and on the same pictures: a forward and a
backward pass and an AdamW step of a whole Qwen-VL of random weights, with a tower large enough for
its arithmetic to count (4 layers, 128 wide). On the CPU, seconds are those of one thread.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.models.vision_batches import batched_vision  # noqa: E402
from tests.bench.test_row_cost import report  # noqa: E402
from tests.models import tiny_qwen  # noqa: E402
from tests.models.test_vision_batches import prompts  # noqa: E402

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(900)]

LAYERS = 4
WIDTH = 128
PAIRS = 9
VIEWS = [(448, 448)] * 5 + [(448, 336), (336, 448), (224, 448)]
"""Pictures of a batch, (width, height) in pixels."""
CROPS = [(112, 112), (112, 56), (56, 112), (56, 56)] * 8
"""Many small ones: tags that a zoom cuts out, or the views of a pocket model."""
LOSS = 1e-4
"""Of the loss: float32, and steps that each begin where the last one ended."""


@pytest.mark.parametrize("sizes", [VIEWS, CROPS], ids=["views", "crops"])
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_steps_with_and_without(kind: str, sizes: list[tuple[int, int]]) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    default = wide_model(kind).to(device).train()
    ours = copy.deepcopy(default)
    batched_vision(ours)
    patch = default.config.vision_config.patch_size
    # Sides are cut down to a multiple of two patches, as a model's own processor does.
    grids = [(1, high // patch // 2 * 2, wide // patch // 2 * 2) for wide, high in sizes]
    inputs = {name: given.to(device) for name, given in prompts(default, grids).items()}
    sides = [(model, torch.optim.AdamW(model.parameters(), lr=1e-4)) for model in (default, ours)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        losses, seconds = [[step(*side, inputs)[0] for side in sides]], []
        for turn in range(PAIRS):
            first, second = (0, 1) if turn % 2 else (1, 0)
            took = {n: step(*sides[n], inputs) for n in (first, second)}
            losses.append([took[0][0], took[1][0]])
            seconds.append((took[0][1], took[1][1]))
    finally:
        torch.set_num_threads(threads)
    low, middle, high = statistics.quantiles((a / b for a, b in seconds), n=4)
    report(
        "train_speed",
        kind=kind,
        device=device,
        pictures=len(sizes),
        patches=len(inputs["pixel_values"]),
        steps=PAIRS,
        default_steps_per_s=1 / statistics.median(before for before, _ in seconds),
        batched_steps_per_s=1 / statistics.median(after for _, after in seconds),
        faster=middle,
        faster_quarter=low,
        faster_three_quarters=high,
        loss_first=losses[0][0],
        loss_last=losses[-1][0],
        loss_apart=max(abs(one - other) / one for one, other in losses),
    )
    assert all(abs(one - other) <= LOSS * one for one, other in losses)
    assert losses[-1][0] < losses[0][0]


def step(model: Any, optimizer: Any, inputs: dict[str, Any]) -> tuple[float, float]:
    """(loss, seconds) of a training step."""
    begun = clock()
    optimizer.zero_grad()
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    optimizer.step()
    return float(loss.detach()), clock() - begun


def clock() -> float:
    """Seconds of this process on the CPU, for others may use it too; on a GPU, of the clock."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def wide_model(kind: str) -> Any:
    from transformers import AutoModelForImageTextToText

    small = tiny_qwen.build_model(tiny_qwen.build_tokenizer(), kind=kind)
    told = small.config.to_dict()
    wide = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_heads": 4, "depth": LAYERS}
    told["vision_config"] |= wide
    if kind == "qwen2_5_vl":
        told["vision_config"] |= {"fullatt_block_indexes": [LAYERS - 1]}
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(type(small.config).from_dict(told))
