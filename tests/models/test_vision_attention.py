"""Laws of highlighting in a language model: the formula, at every step, and nothing besides."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AttentionInterface, MistralConfig, MistralForCausalLM  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402

from pipeline.models.vision_attention import (  # noqa: E402
    BY_LAYER,
    biased,
    has_effect,
    highlight,
)
from tests.models import tiny_vlms  # noqa: E402
from tests.models.by_formula import WEIGHTS, by_formula, by_hooks, explicit, log_flags, logits  # noqa: E402
from tests.models.tiny_vlms import Tiny  # noqa: E402

KINDS = ("llava", "llava_next", "qwen")
GREEDY = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(scope="module", params=KINDS)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return getattr(tiny_vlms, request.param)()


@pytest.fixture(scope="module")
def llava() -> Tiny:
    return tiny_vlms.llava()


def test_before_and_after_a_highlight_the_model_is_bit_for_bit_the_same(tiny: Tiny) -> None:
    before = logits(tiny.model, tiny.inputs)
    with highlight(tiny.model, tiny.flags, WEIGHTS, tiny.ids):
        inside = logits(tiny.model, tiny.inputs)
    assert not torch.allclose(before, inside, atol=1e-2)
    assert torch.equal(before, logits(tiny.model, tiny.inputs))


def test_weight_one_and_no_flags_are_bit_for_bit_sdpa_with_a_mask(tiny: Tiny) -> None:
    """The second prompt is padded, so plain sdpa has a mask here too."""
    real = tiny.inputs["attention_mask"].bool()
    plain = logits(tiny.model, tiny.inputs)[real]
    with highlight(tiny.model, tiny.flags, 1.0):
        assert torch.equal(plain, logits(tiny.model, tiny.inputs)[real])
    with highlight(tiny.model, torch.zeros_like(tiny.flags), 4.5):
        assert torch.equal(plain, logits(tiny.model, tiny.inputs)[real])


def test_a_highlight_is_the_formula_on_every_row_and_at_every_decode_step(tiny: Tiny) -> None:
    """Also: what is decoded step by step is what one pass over the whole sequence would say."""
    double = Tiny(copy.deepcopy(tiny.model).double(), dict(tiny.inputs))
    double.inputs["pixel_values"] = tiny.inputs["pixel_values"].double()
    with highlight(double.model, tiny.flags, WEIGHTS, tiny.ids):
        out = double.model.generate(
            **double.inputs, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
    whole = by_formula(tiny, log_flags(tiny), out.sequences)
    start = tiny.ids.shape[1] - 1
    steps = torch.stack(out.logits, 1)
    torch.testing.assert_close(steps.double(), whole[:, start : start + 5], atol=5e-7, rtol=0)
    real = tiny.inputs["attention_mask"].bool()
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        ours = logits(tiny.model, tiny.inputs)
    single = by_formula(tiny, log_flags(tiny))  # weights this wild make much of float32's rounding
    assert (ours - single)[real].abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl"])
def test_the_other_qwens_follow_the_formula_too(kind: str) -> None:
    tiny = tiny_vlms.qwen(kind)
    real = tiny.inputs["attention_mask"].bool()
    with highlight(tiny.model, tiny.flags, WEIGHTS, tiny.ids):
        ours = logits(tiny.model, tiny.inputs)
    formula = by_formula(tiny, log_flags(tiny))
    assert (ours - formula)[real].abs().max() < 1e-4
    assert (logits(tiny.model, tiny.inputs) - formula)[real].abs().max() > 1e-2


def test_a_row_of_a_padded_batch_is_that_row_alone(tiny: Tiny) -> None:
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        both = tiny.model.generate(
            **tiny.inputs, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
    for index in (0, 1):
        kept = tiny.inputs["attention_mask"][index].bool()
        with highlight(tiny.model, tiny.flags[index, kept], float(WEIGHTS[index])):
            alone = tiny.model.generate(
                **tiny.row(index), **GREEDY, output_logits=True, return_dict_in_generate=True
            )
        for step, single in zip(both.logits, alone.logits, strict=True):
            assert torch.allclose(step[index], single[0], atol=2e-5)


def test_beams_and_several_replies_are_highlighted_like_their_prompt(tiny: Tiny) -> None:
    asked = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 4, "do_sample": False}
    asked |= {"return_dict_in_generate": True, "output_scores": True}
    with by_hooks(tiny, log_flags(tiny)):
        theirs = tiny.model.generate(**tiny.inputs, **asked)
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        ours = tiny.model.generate(**tiny.inputs, **asked)
    assert torch.equal(ours.sequences, theirs.sequences)
    assert torch.allclose(ours.sequences_scores, theirs.sequences_scores, atol=1e-5)
    assert not torch.equal(tiny.model.generate(**tiny.inputs, **asked).sequences, ours.sequences)


@pytest.mark.parametrize(
    "more",
    [{"cache_implementation": "static"}, {"use_cache": False}, {"prefill_chunk_size": 8}],
    ids=["static cache", "no cache", "prompt in chunks"],
)
def test_every_kind_of_cache_gives_the_same_reply(llava: Tiny, more: dict[str, Any]) -> None:
    with highlight(llava.model, llava.flags, WEIGHTS):
        plain = llava.model.generate(**llava.inputs, **GREEDY)
        assert torch.equal(plain, llava.model.generate(**llava.inputs, **GREEDY, **more))
    assert not torch.equal(plain, llava.model.generate(**llava.inputs, **GREEDY))


def test_some_layers_and_some_heads_are_left_as_they_are(tiny: Tiny) -> None:
    with highlight(tiny.model, tiny.flags, WEIGHTS, layers=[1], heads=(0, 3)):
        ours = tiny.model.generate(**tiny.inputs, **GREEDY)
        assert tiny.model.config.get_text_config()._attn_implementation == BY_LAYER
        at_once = logits(tiny.model, tiny.inputs)
    with by_hooks(tiny, log_flags(tiny), lambda layer, head: layer == 1 and head in (0, 3)):
        theirs = tiny.model.generate(**tiny.inputs, **GREEDY)
        formula = logits(tiny.model, tiny.inputs)
    assert torch.equal(ours, theirs)
    assert torch.allclose(at_once[:, -1], formula[:, -1], atol=1e-5)
    with highlight(tiny.model, tiny.flags, WEIGHTS, layers=range(2), heads=range(4)):
        every = logits(tiny.model, tiny.inputs)
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        assert torch.equal(every, logits(tiny.model, tiny.inputs))


def test_rows_after_the_image_leave_what_came_before_untouched(llava: Tiny) -> None:
    with highlight(llava.model, llava.flags, WEIGHTS, llava.ids, rows="after_image"):
        late = llava.model(**llava.inputs)
        out = llava.model.generate(
            **llava.inputs, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
    with highlight(llava.model, llava.flags, 1.0):
        plain = llava.model(**llava.inputs)
    last = int((llava.ids == tiny_vlms.IMAGE)[0].nonzero().max()) + 1
    for mine, other in zip(late.past_key_values.layers, plain.past_key_values.layers, strict=True):
        assert torch.equal(mine.keys[:, :, :last], other.keys[:, :, :last])
    assert not torch.allclose(late.logits[:, last:], plain.logits[:, last:], atol=1e-2)
    whole = by_formula(llava, log_flags(llava), out.sequences, last).float()
    start = llava.ids.shape[1] - 1
    assert torch.allclose(torch.stack(out.logits, 1), whole[:, start:-1], atol=1e-4)


def test_a_cache_that_forgets_keys_forgets_their_flags_too() -> None:
    """Sliding windows: the cache's first key is not the prompt's first. Text alone, no picture."""
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**tiny_vlms._TEXT, head_dim=8, sliding_window=7))
    ids = torch.randint(3, 60, (1, 12), generator=torch.Generator().manual_seed(1))
    flags = torch.arange(12)[None] % 3 == 0
    with highlight(model.eval(), flags, 6.0):
        out = model.generate(
            ids, **GREEDY, eos_token_id=None, output_logits=True, return_dict_in_generate=True
        )
    count = out.sequences.shape[1]
    mask = explicit(
        torch.nn.functional.pad(flags * math.log(6.0), (0, count - 12)),
        torch.ones(1, count),
    )
    far = torch.ones(count, count, dtype=torch.bool).tril(-7)
    model.set_attn_implementation("eager")
    whole = logits(
        model, {"input_ids": out.sequences, "attention_mask": mask.masked_fill(far, -3e38)}
    )
    assert torch.allclose(torch.stack(out.logits, 1), whole[:, 11:-1], atol=2e-5)


def test_a_share_scales_the_logarithm_and_rows_have_their_own_weight(llava: Tiny) -> None:
    shares = llava.flags.numpy() * np.float64(0.5)
    with highlight(llava.model, shares, [16.0, 9.0]):
        soft = logits(llava.model, llava.inputs)
    with biased(llava.model, llava.flags * torch.tensor([[4.0], [3.0]]).log()):
        assert torch.allclose(soft, logits(llava.model, llava.inputs), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("weight", [1e4, 1e-30])
def test_half_precision_stays_finite_on_padded_rows(dtype: str, weight: float) -> None:
    tiny = tiny_vlms.llava()
    tiny.model.to(getattr(torch, dtype))
    tiny.inputs["pixel_values"] = tiny.inputs["pixel_values"].to(tiny.model.dtype)
    with highlight(tiny.model, torch.ones_like(tiny.ids), weight):
        assert torch.isfinite(logits(tiny.model, tiny.inputs)).all()
    assert has_effect(tiny.model, tiny.inputs, tiny.flags)


def test_the_self_test_tells_a_highlight_that_works_from_one_that_does_not(llava: Tiny) -> None:
    assert has_effect(llava.model, llava.inputs, llava.flags)
    assert not has_effect(llava.model, llava.inputs, torch.zeros_like(llava.flags))
    places = torch.arange(llava.ids.shape[1]).expand(2, -1)
    ready = explicit(torch.zeros(llava.ids.shape), llava.inputs["attention_mask"])
    around = llava.inputs | {"attention_mask": ready, "position_ids": places}
    assert not has_effect(llava.model, around, llava.flags)
    AttentionInterface.register("without_mask", sdpa_attention_forward)
    llava.model.set_attn_implementation({"text_config": "without_mask"})  # weight 1 would mend it
    assert not has_effect(llava.model, llava.inputs, llava.flags)
    llava.model.set_attn_implementation({"text_config": "sdpa"})
