"""The registered functions give what the published attention gives, on its own inputs."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AttentionInterface  # noqa: E402
from transformers.masking_utils import (  # noqa: E402
    ALL_MASK_ATTENTION_FUNCTIONS,
    bidirectional_mask_function,
    causal_mask_function,
)

from pipeline.models.guidance import two_branch_bias  # noqa: E402
from pipeline.models.vision_attention import BY_LAYER, WHOLE, biased, highlight  # noqa: E402
from tests.models import published, tiny_vlms  # noqa: E402

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
CASES = [case for case in published.cases("attention") if case["kind"] != "qformer_cross"]


class Module(torch.nn.Module):
    """What the attention functions look up in a decoder's attention module."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = 0
        self.is_causal = True


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_vlms.llava().model


def attend(
    config: Any,
    name: str,
    arrays: dict[str, torch.Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    pad: list[int] | None = None,
    free: bool = False,
) -> torch.Tensor:
    """(B, T, H·D): mask and attention functions of that name, called as a decoder calls them."""
    query, key, value = (arrays[which].to(dtype) for which in "qkv")
    count, keys = query.shape[2], key.shape[2]
    mask = mask_of(config, name, len(query), count, keys, dtype=dtype, pad=pad, free=free)
    scale = query.shape[-1] ** -0.5
    functions = AttentionInterface()
    out, _ = functions[name](Module(config), query, key, value, mask, dropout=0.0, scaling=scale)
    return out.flatten(2).float()


def mask_of(
    config: Any,
    name: str,
    batch: int,
    count: int,
    keys: int,
    *,
    dtype: torch.dtype = torch.float32,
    pad: list[int] | None = None,
    free: bool = False,
) -> torch.Tensor | None:
    seen = None if pad is None else torch.arange(keys) >= torch.tensor(pad)[:, None]
    return ALL_MASK_ATTENTION_FUNCTIONS[name](
        batch_size=batch,
        q_length=count,
        kv_length=keys,
        q_offset=keys - count,
        kv_offset=0,
        mask_function=bidirectional_mask_function if free else causal_mask_function,
        attention_mask=seen,
        allow_is_causal_skip=True,
        dtype=dtype,
        config=config,
        use_vmap=False,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("name", [WHOLE, BY_LAYER])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_published_attention_comes_out(model: Any, case: dict[str, Any], name: str) -> None:
    config, arrays = model.config.text_config, case["arrays"]
    flags, weight = torch.tensor([case["hl"]]), case["weight"]
    layers = [0] if name == BY_LAYER else None
    if case["kind"] == "ph_prefill":
        with biased(model, two_branch_bias(flags, weight), layers=layers):
            out = attend(config, name, arrays)
            assert torch.allclose(out, arrays["out"], atol=2e-6)
    elif case["kind"] == "cof_decode":
        with highlight(model, flags, weight, layers=layers):
            for step in range(4):  # keys and values of a step are the new ones alone
                cache = {
                    which: torch.cat([arrays[f"step{s}/{which}"] for s in range(step + 1)], 2)
                    for which in "kv"
                }
                out = attend(config, name, cache | {"q": arrays[f"step{step}/q"]})
                assert torch.allclose(out, arrays[f"step{step}/out"], atol=2e-6)
    else:
        dtype = DTYPES.get(case.get("dtype", ""), torch.float32)
        with highlight(model, flags, weight, layers=layers):
            free = case["mask"] is None
            out = attend(config, name, arrays, dtype=dtype, pad=case.get("pad"), free=free)
        for row, first in enumerate(case.get("compare_rows_from", [0] * len(out))):
            wanted = arrays["out"][row, first:]
            assert torch.allclose(out[row, first:], wanted, atol=case.get("atol", 2e-6))


@pytest.mark.parametrize("name", [WHOLE, BY_LAYER])
def test_without_a_highlight_the_mask_is_what_plain_sdpa_gets(model: Any, name: str) -> None:
    config = model.config.text_config
    assert mask_of(config, name, 2, 8, 8) is None
    padded = mask_of(config, name, 2, 8, 8, pad=[0, 2])
    plain = mask_of(config, "sdpa", 2, 8, 8, pad=[0, 2])
    assert padded is not None and plain is not None and torch.equal(padded, plain)
    with highlight(model, [0, 1, 1], 1.0):
        assert mask_of(config, name, 2, 8, 8) is not None
