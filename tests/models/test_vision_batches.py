"""Laws of a vision tower without a loop over pictures: the same results, fewer calls."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForImageTextToText  # noqa: E402
from transformers.vision_utils import (  # noqa: E402
    get_vision_attention_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from pipeline.models import vision_batches  # noqa: E402
from pipeline.models.vision_attention import has_effect, highlight  # noqa: E402
from pipeline.models.vision_batches import GridTables, batched_vision  # noqa: E402
from tests.models import tiny_qwen  # noqa: E402

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
CLOSE = 1e-5
"""Of the largest number: float32, summed in another order."""
ONE = [(1, 10, 6)]
EQUAL = [(1, 8, 8)] * 3
MIXED = [(1, 20, 12), (1, 4, 4), (1, 12, 20), (1, 4, 4), (1, 10, 18), (1, 2, 2)]
"""Patches in time, down and across; a window of Qwen2.5-VL is 8 × 8, so some are cut off."""
FILM = [(2, 4, 8), (1, 12, 6), (3, 4, 4)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_qwen.build_tokenizer()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def pair(tokenizer: Any, kind: str) -> tuple[Any, Any]:
    """A model as it was loaded, and the same with its vision batched."""
    default = tiny_qwen.build_model(tokenizer, kind=kind).train()
    ours = copy.deepcopy(default)
    batched_vision(ours)
    return default, ours


def towers(tokenizer: Any, kind: str) -> tuple[Any, Any]:
    default, ours = pair(tokenizer, kind)
    return default.model.visual, ours.model.visual


def pixels(tower: Any, grids: list[tuple[int, int, int]], seed: int = 1) -> Any:
    """float32 (patches, numbers of a patch)."""
    patches = sum(t * h * w for t, h, w in grids)
    numbers = tower.patch_embed.proj.weight[0].numel()
    return torch.randn(patches, numbers, generator=torch.Generator().manual_seed(seed))


def seen(tower: Any, shown: Any, grids: list[tuple[int, int, int]]) -> list[Any]:
    """All that the language model gets of the pictures."""
    out = tower(shown, grid_thw=torch.tensor(grids))
    return [out.pooler_output, *getattr(out, "deepstack_features", [])]


def assert_same(ours: list[Any], default: list[Any], close: float = CLOSE) -> None:
    assert len(ours) == len(default) > 0
    for one, other in zip(ours, default, strict=True):
        size = max(1.0, float(other.detach().abs().max()))
        assert float((one - other).detach().abs().max()) <= close * size


def with_gradients(tower: Any, shown: Any, grids: list[tuple[int, int, int]]) -> list[Any]:
    """What is seen, then the gradient of each parameter and of the pixels."""
    shown = shown.clone().requires_grad_()
    out = seen(tower, shown, grids)
    weight = torch.linspace(-1, 1, out[0].numel()).reshape(out[0].shape)
    sum((part * weight).sum() for part in out).backward()
    return [*out, shown.grad, *(p.grad for p in tower.parameters() if p.grad is not None)]


def prompts(model: Any, grids: list[tuple[int, int, int]]) -> dict[str, Any]:
    """A batch of one row for each picture, of unequal lengths, as a model's forward takes it."""
    config = model.config
    rows = []
    for t, h, w in grids:
        visual = [config.image_token_id] * (t * h * w // 4)
        start, end = config.vision_start_token_id, config.vision_end_token_id
        rows.append([10, 11, start, *visual, end, 12, 13, 14])
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == config.image_token_id).int(),
        "pixel_values": pixels(model.model.visual, grids),
        "image_grid_thw": torch.tensor(grids),
    }


class Counted(torch.overrides.TorchFunctionMode):
    """How many times scaled dot-product attention is called while inside."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("grids", [ONE, EQUAL, MIXED, FILM], ids=["one", "equal", "mixed", "film"])
def test_outputs_and_gradients_are_those_of_the_default(
    tokenizer: Any, kind: str, grids: list[tuple[int, int, int]]
) -> None:
    default, ours = towers(tokenizer, kind)
    shown = pixels(default, grids)
    assert_same(with_gradients(ours, shown, grids), with_gradients(default, shown, grids))


def test_a_picture_is_seen_the_same_whatever_stands_beside_it(tokenizer: Any, kind: str) -> None:
    _, ours = towers(tokenizer, kind)
    firsts = torch.tensor([0, *(t * h * w for t, h, w in MIXED)]).cumsum(0).tolist()
    shown = pixels(ours, MIXED)
    together = seen(ours, shown, MIXED)
    for number, (first, last) in enumerate(pairwise(firsts)):
        alone = seen(ours, shown[first:last], [MIXED[number]])
        assert_same([part[first // 4 : last // 4] for part in together], alone)


def test_a_layer_attends_once_for_each_length(tokenizer: Any) -> None:
    lengths = {"qwen2_vl": (4, 4), "qwen3_vl": (4, 4), "qwen2_5_vl": (4, 4)}
    for kind, of_layers in lengths.items():
        default, ours = towers(tokenizer, kind)
        shown = pixels(ours, MIXED)
        with Counted() as before:
            seen(default, shown, MIXED)
        with Counted() as after:
            seen(ours, shown, MIXED)
        assert after.calls == sum(of_layers) < before.calls
        with Counted() as equal:
            seen(ours, pixels(ours, EQUAL), EQUAL)
        assert equal.calls == 2


def test_training_steps_lose_the_same(tokenizer: Any, kind: str) -> None:
    losses = []
    for model in pair(tokenizer, kind):
        inputs = prompts(model, MIXED[:4])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        losses.append([])
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(**inputs, labels=inputs["input_ids"]).loss
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.detach())
    assert_same(losses[1], losses[0])
    assert losses[0][2] < losses[0][0]


@pytest.mark.parametrize("reentrant", [False, True])
def test_adapters_and_gradient_checkpointing_take_it(tokenizer: Any, reentrant: bool) -> None:
    peft = pytest.importorskip("peft")
    adapters = peft.LoraConfig(r=2, target_modules=["qkv", "q_proj"], init_lora_weights="gaussian")
    results = []
    for switched in (False, True):
        torch.manual_seed(3)
        model = peft.get_peft_model(tiny_qwen.build_model(tokenizer), adapters).train()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        if switched:
            batched_vision(model)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        inputs = prompts(model.get_base_model(), MIXED[:3])
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert sum(".visual." in n and p.grad is not None for n, p in model.named_parameters()) == 4
        results.append([loss.detach(), *grads])
    assert_same(results[1], results[0])


def test_half_precision_stays_as_near_to_float32_as_the_default(tokenizer: Any, kind: str) -> None:
    default, ours = towers(tokenizer, kind)
    shown = pixels(default, MIXED)
    with torch.no_grad():
        exact = seen(default, shown, MIXED)
        low = [seen(tower.bfloat16(), shown.bfloat16(), MIXED) for tower in (default, ours)]
    errors = [
        max(float((a.float() - b).abs().max()) for a, b in zip(part, exact, strict=True))
        for part in low
    ]
    assert errors[1] <= 1.5 * errors[0]


def test_only_the_tower_changes_and_only_once(tokenizer: Any, kind: str) -> None:
    default, ours = pair(tokenizer, kind)
    batched_vision(ours)
    assert len(ours.model.visual._forward_pre_hooks) == 1
    assert ours.config.to_dict() == default.config.to_dict()
    assert [p._attn_implementation for p in (ours.config, ours.config.get_text_config())] == [
        default.config._attn_implementation
    ] * 2
    parts = [part for part in ours.model.language_model.modules() if hasattr(part, "config")]
    names = {part.config._attn_implementation for part in parts}
    assert names == {"sdpa"}
    AutoModelForImageTextToText.from_config(ours.config)


def test_nothing_of_it_is_saved_and_copies_have_it(
    tokenizer: Any, kind: str, tmp_path: Path
) -> None:
    default, ours = towers(tokenizer, kind)
    model = tiny_qwen.build_model(tokenizer, kind=kind)
    model.save_pretrained(tmp_path / "default")
    batched_vision(model)
    model.save_pretrained(tmp_path / "ours")
    plain, switched = (sorted((tmp_path / n).iterdir()) for n in ("default", "ours"))
    assert [p.name for p in plain] == [p.name for p in switched]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(plain, switched, strict=True))
    shown = pixels(default, MIXED)
    with Counted() as first:
        expected = seen(ours, shown, MIXED)
    with Counted() as second:
        assert_same(seen(copy.deepcopy(ours), shown, MIXED), expected, 0)
    assert first.calls == second.calls


def test_the_tables_are_those_that_the_tower_would_make(tokenizer: Any, kind: str) -> None:
    _, tower = towers(tokenizer, kind)
    kept = GridTables()
    for grids in (MIXED, FILM, MIXED[::-1]):
        given = torch.tensor(grids)
        _, tables = kept(tower, (None, given), {})
        merge = tower.spatial_merge_size
        expected = {"position_ids": get_vision_position_ids(given, merge)}
        expected["cu_seqlens"], _ = get_vision_attention_seqlens(given, tower.config)
        if kind == "qwen2_5_vl":
            found = get_vision_window_index(given, merge, tower.window_size, tower.patch_size)
            expected["window_index"], expected["cu_window_seqlens"] = found
            assert tables.pop("max_window_seqlen") == found[1].diff().max()
        if kind == "qwen3_vl":
            found = get_vision_interpolation_indices_and_weights(
                given, tower.num_grid_per_side, "bilinear", True, merge
            )
            expected["interp_indices"], expected["interp_weights"] = found
        assert tables.pop("max_seqlen") == expected["cu_seqlens"].diff().max()
        assert tables.keys() == expected.keys()
        for name, table in tables.items():
            assert table.dtype == expected[name].dtype
            assert torch.equal(table, expected[name])


def test_tables_are_made_once_for_a_grid_and_forgotten_when_there_are_too_many(
    tokenizer: Any,
) -> None:
    _, tower = towers(tokenizer, "qwen3_vl")
    kept = GridTables(most_patches=100)
    for grids, left in ((EQUAL, 1), ([(1, 6, 6)], 2), (EQUAL, 2), ([(1, 2, 2)], 1), (MIXED, 1)):
        kept(tower, (None, torch.tensor(grids)), {})
        assert len(kept._kept) == left


def test_a_caller_who_gives_tables_keeps_them(tokenizer: Any) -> None:
    default, tower = towers(tokenizer, "qwen2_5_vl")
    shown, grids = pixels(tower, EQUAL), torch.tensor(EQUAL)
    whole = torch.tensor([0, 3 * 64], dtype=torch.int32)
    ours = tower(shown, grid_thw=grids, cu_seqlens=whole).pooler_output
    theirs = default(shown, grid_thw=grids, cu_seqlens=whole).pooler_output
    assert_same([ours], [theirs])


def test_a_model_that_has_answered_can_be_trained(tokenizer: Any, kind: str) -> None:
    default, ours = towers(tokenizer, kind)
    for grids in (ONE, MIXED):
        shown = pixels(ours, grids)
        with torch.inference_mode():
            seen(ours, shown, grids)
        assert_same(with_gradients(ours, shown, grids), with_gradients(default, shown, grids))


def test_a_highlight_works_on_it_as_on_the_default(tokenizer: Any, kind: str) -> None:
    default, ours = pair(tokenizer, kind)
    inputs = prompts(default, MIXED[:2])
    flags = inputs["mm_token_type_ids"].bool() & (
        torch.arange(inputs["input_ids"].shape[1]) % 2 > 0
    )
    assert has_effect(ours.eval(), inputs, flags)
    logits = []
    for model in (ours, default.eval()):
        with torch.inference_mode(), highlight(model, flags, 8.0), Counted() as counted:
            logits.append([model(**inputs).logits])
        logits[-1].append(counted.calls)
    assert_same(logits[0][:1], logits[1][:1])
    assert logits[0][1] < logits[1][1] or kind != "qwen2_5_vl"


def test_a_tower_with_a_flash_attention_keeps_it(tokenizer: Any) -> None:
    model = tiny_qwen.build_model(tokenizer)
    model.config.vision_config._attn_implementation = "flash_attention_2"
    batched_vision(model)
    asked = model.model.visual.blocks[0].attn.config._attn_implementation
    assert asked == "flash_attention_2"


def test_a_model_without_such_a_tower_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear"):
        batched_vision(torch.nn.Linear(1, 1))


def test_torchs_variable_length_attention_takes_what_it_is_given() -> None:
    pytest.importorskip("torch.nn.attention.varlen")
    packed = [torch.empty(20, 2, 16, dtype=torch.bfloat16, device="meta") for _ in range(3)]
    bounds = torch.empty(4, dtype=torch.int32, device="meta")
    mixed = vision_batches._by_kernel(packed, bounds, 12)
    assert mixed.shape == (20, 2, 16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_one_call_gives_what_the_default_gives(tokenizer: Any, kind: str) -> None:
    default, ours = (tower.cuda().bfloat16() for tower in towers(tokenizer, kind))
    shown = pixels(default, MIXED).cuda().bfloat16()
    grids = torch.tensor(MIXED, device="cuda")
    theirs = default(shown, grid_thw=grids).pooler_output
    with Counted() as counted:
        mixed = ours(shown, grid_thw=grids).pooler_output
    assert counted.calls == 0
    assert_same([mixed], [theirs], 2e-2)
    mixed.float().square().mean().backward()
