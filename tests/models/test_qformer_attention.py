"""Laws of highlighting in InstructBLIP: the bias lies in the Q-Former while the block lasts."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

from pipeline.errors import ConfigError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.models.guidance import two_branch_bias  # noqa: E402
from pipeline.models.qformer_attention import cross_attentions  # noqa: E402
from pipeline.models.vision_attention import biased, has_effect, highlight  # noqa: E402
from tests.models import published, tiny_vlms  # noqa: E402
from tests.models.tiny_vlms import Tiny  # noqa: E402

WEIGHTS = torch.tensor([20.0, 0.1])
CASES = [case for case in published.cases("attention") if case["kind"] == "qformer_cross"]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return tiny_vlms.instructblip()


def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def hooks(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def with_whole_mask(tiny: Tiny, bias: torch.Tensor) -> torch.Tensor:
    """Another way to the same: the Q-Former itself is given a ready-made 4-D mask (B, 1, 1, K)."""

    def before(module: Any, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, named | {"encoder_attention_mask": bias[:, None, None, :]}

    hook = tiny.model.qformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        return logits(tiny.model, tiny.inputs)
    finally:
        hook.remove()


def split(case: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """A model whose first cross-attention takes keys and values, side by side, as they are."""
    tiny = tiny_vlms.instructblip(hidden_size=8, num_hidden_layers=1)
    attention = cross_attentions(tiny.model)[0]
    nothing, same = torch.zeros(8, 8), torch.eye(8)
    for layer, weight in (
        (attention.query, same),
        (attention.key, torch.cat([same, nothing], 1)),
        (attention.value, torch.cat([nothing, same], 1)),
    ):
        layer.weight.data, layer.bias.data = weight, torch.zeros(8)
    return tiny.model, torch.cat([case["arrays"]["k"], case["arrays"]["v"]], -1)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_published_cross_attention_comes_out(case: dict[str, Any]) -> None:
    model, states = split(case)
    bias = two_branch_bias(torch.tensor([case["hl"]]), case["weight"])
    with biased(model, bias), torch.inference_mode():
        out, _ = cross_attentions(model)[0](
            hidden_states=case["arrays"]["q"], encoder_hidden_states=states
        )
    assert torch.allclose(out, case["arrays"]["out"], atol=2e-6)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_a_highlight_is_the_formula_and_leaves_nothing_behind(tiny: Tiny, kind: str) -> None:
    tiny.model.set_attn_implementation({"qformer_config": kind})
    before = logits(tiny.model, tiny.inputs)
    bias = tiny.flags * WEIGHTS.log()[:, None]
    with highlight(tiny.model, tiny.flags, WEIGHTS, tiny.ids):
        ours = logits(tiny.model, tiny.inputs)
    assert torch.allclose(ours, with_whole_mask(tiny, bias), atol=5e-7)
    assert not torch.allclose(ours, before, atol=1e-2)
    assert torch.equal(before, logits(tiny.model, tiny.inputs))
    with highlight(tiny.model, tiny.flags, 1.0):
        assert torch.allclose(before, logits(tiny.model, tiny.inputs), atol=5e-6)
    assert hooks(tiny.model) == 0


def test_generation_and_a_row_alone_are_highlighted_alike(tiny: Tiny) -> None:
    greedy = {"max_new_tokens": 4, "do_sample": False}
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        both = tiny.model.generate(**tiny.inputs, **greedy)
        several = tiny.model.generate(**tiny.inputs, **greedy, num_beams=2, num_return_sequences=2)
    assert len(several) == 4
    assert not torch.equal(both, tiny.model.generate(**tiny.inputs, **greedy))
    for index in (0, 1):
        with highlight(tiny.model, tiny.flags[index], float(WEIGHTS[index])):
            alone = tiny.model.generate(**tiny.row(index), **greedy)
        assert torch.equal(alone[0, -4:], both[index, -4:])


def test_layers_and_heads_can_be_chosen_among_those_that_look(tiny: Tiny) -> None:
    looking = cross_attentions(tiny.model)
    assert sorted(looking) == [0, 2]
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        whole = logits(tiny.model, tiny.inputs)
    with highlight(tiny.model, tiny.flags, WEIGHTS, layers=[0, 2], heads=[0, 1]):
        assert torch.equal(whole, logits(tiny.model, tiny.inputs))
    found = []
    for chosen in ({"layers": [0]}, {"layers": [2]}, {"heads": [0]}, {"heads": [1]}):
        with highlight(tiny.model, tiny.flags, WEIGHTS, **chosen):
            found.append(logits(tiny.model, tiny.inputs))
    for index, one in enumerate(found):
        assert all(not torch.allclose(one, other) for other in [whole, *found[index + 1 :]])


def test_another_thread_computes_as_usual_and_a_copied_context_highlights(tiny: Tiny) -> None:
    found: dict[str, torch.Tensor] = {}

    def at_work(name: str) -> None:
        found[name] = logits(tiny.model, tiny.inputs)

    plain = logits(tiny.model, tiny.inputs)
    with highlight(tiny.model, tiny.flags, WEIGHTS):
        here = logits(tiny.model, tiny.inputs)
        context = contextvars.copy_context()
        alone = threading.Thread(target=at_work, args=("alone",))
        sharing = threading.Thread(target=context.run, args=(at_work, "sharing"))
        for thread in (alone, sharing):
            thread.start()
            thread.join()
        with pytest.raises(ConfigError, match="already"), biased(tiny.model, tiny.flags):
            pass
        assert torch.equal(here, logits(tiny.model, tiny.inputs))
    assert torch.equal(found["alone"], plain)
    assert torch.equal(found["sharing"], here)


def test_the_self_test_and_an_error_inside_leave_the_model_as_it_was(tiny: Tiny) -> None:
    assert has_effect(tiny.model, tiny.inputs, tiny.flags)
    assert not has_effect(tiny.model, tiny.inputs, torch.zeros(2, 17))
    with pytest.raises(ZeroDivisionError), highlight(tiny.model, tiny.flags, 2.0):
        raise ZeroDivisionError
    assert hooks(tiny.model) == 0


def test_a_mask_that_hides_keys_keeps_them_hidden(tiny: Tiny) -> None:
    """A mask of either kind, given by name or by place."""
    attention = cross_attentions(tiny.model)[0]
    states, queries = torch.randn(2, 17, 16), torch.randn(2, 3, 32)
    seen = torch.ones(2, 1, 1, 17, dtype=torch.bool)
    seen[:, :, :, 5:] = False
    lowest = torch.finfo(torch.float32).min
    floats = torch.zeros(seen.shape).masked_fill(~seen, lowest)
    flags = torch.zeros(2, 17)
    flags[:, 4:7] = 1
    with torch.inference_mode(), highlight(tiny.model, flags, 1e-30):
        one, _ = attention(queries, None, states, seen)
        other, _ = attention(queries, encoder_hidden_states=states, encoder_attention_mask=floats)
    with torch.inference_mode(), highlight(tiny.model, flags[:, :5], 1e-30):
        alone, _ = attention(queries, encoder_hidden_states=states[:, :5])
    assert torch.allclose(one, alone, atol=1e-6)
    assert torch.allclose(other, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("says", "asked"),
    [
        ("class token", {"flags": torch.ones(2, 17)}),
        ("are 'all'", {"rows": "after_image"}),
        ("no layer 1", {"layers": [1]}),
        ("no head 2", {"heads": [2]}),
        ("above 0", {"weight": 0}),
    ],
)
def test_what_does_not_fit_is_refused(tiny: Tiny, says: str, asked: dict[str, Any]) -> None:
    settings = {"flags": tiny.flags, "weight": 2.0} | asked
    with pytest.raises(ConfigError, match=says), highlight(tiny.model, **settings):
        raise AssertionError("it was not refused")
    assert hooks(tiny.model) == 0


def test_flags_of_another_size_are_refused_when_the_model_looks(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="16 keys do not fit the 17"):  # noqa: SIM117
        with highlight(tiny.model, torch.zeros(2, 16), 2.0):
            logits(tiny.model, tiny.inputs)


def test_an_attention_that_takes_no_mask_is_refused(tiny: Tiny) -> None:
    config = tiny.model.config.qformer_config
    config._attn_implementation = "flash_attention_2"
    try:
        with (
            pytest.raises(ConfigError, match="takes no bias"),
            highlight(tiny.model, tiny.flags, 2.0),
        ):
            pass
    finally:
        config._attn_implementation = "sdpa"
