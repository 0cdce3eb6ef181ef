"""Laws of two-branch guidance: the published numbers, and what each branch computes by itself."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import LogitsProcessorList  # noqa: E402

from pipeline.models.guidance import (  # noqa: E402
    TwoBranchGuidance,
    perturbed,
    two_branch_bias,
    two_branches,
)
from pipeline.models.vision_attention import highlight  # noqa: E402
from tests.models import published, tiny_vlms  # noqa: E402
from tests.models.tiny_vlms import Tiny  # noqa: E402

SAME = torch.zeros(2, 4, dtype=torch.long)
SCALED = published.cases("cfg")
SCALES = published.cases("perturb")


@pytest.fixture(scope="module", params=["llava", "instructblip"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return getattr(tiny_vlms, request.param)()


def twice(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}


@pytest.mark.parametrize("case", SCALED, ids=[case["id"] for case in SCALED])
def test_the_published_scores_come_out(case: dict[str, Any]) -> None:
    guide = TwoBranchGuidance(case["guidance_scale"], case["use_log"])
    arrays = case["arrays"]
    assert torch.allclose(guide(SAME, arrays["scores"]), arrays["out"], atol=1e-6)


@pytest.mark.parametrize("case", SCALES, ids=[case["id"] for case in SCALES])
def test_the_published_perturbation_comes_out_in_the_second_half(case: dict[str, Any]) -> None:
    """The published code scales the batch's last row; with one row there, it is its own pair."""
    given, wanted = case["arrays"]["in"], case["arrays"]["out"]
    both = given if len(given) == 2 else given.repeat(2, 1, 1)
    flags = case.get("hl_used") or [0.0] * given.shape[1]
    out = perturbed(both, [flags], case["perturb_weight"])
    assert torch.allclose(out[-1], wanted[-1], atol=1e-7)
    assert torch.equal(out[0], both[0])


def test_scale_one_is_the_first_half_and_zero_the_second() -> None:
    scores = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(4, 2, dtype=torch.long)
    for use_log, chances in ((False, scores.softmax(-1)), (True, scores.log_softmax(-1))):
        first = TwoBranchGuidance(1.0, use_log)(ids, scores)
        assert torch.allclose(first, chances[:2].repeat(2, 1), atol=1e-6)
        second = TwoBranchGuidance(0.0, use_log)(ids, scores)
        assert torch.equal(second, chances[2:].repeat(2, 1))


def test_branches_that_have_parted_and_odd_batches_are_refused() -> None:
    guide = TwoBranchGuidance(1.3)
    with pytest.raises(ConfigError, match="differ"):
        guide(torch.tensor([[1, 2], [1, 3]]), torch.zeros(2, 5))
    with pytest.raises(ConfigError, match="two halves"):
        guide(torch.zeros(3, 2), torch.zeros(3, 5))


@pytest.mark.parametrize(
    ("says", "make"),
    [
        ("scale", lambda: TwoBranchGuidance(float("nan"))),
        ("above 0", lambda: two_branch_bias([[0, 1]], 0.0)),
        ("factor", lambda: perturbed(torch.zeros(2, 3, 1), [[0, 1, 0]], -0.1)),
        ("do not fit", lambda: perturbed(torch.zeros(2, 3, 1), [[0, 1]], 0.1)),
        ("do not fit", lambda: perturbed(torch.zeros(1, 2, 1), [[0, 1]], 0.1)),
    ],
)
def test_what_does_not_fit_is_refused(says: str, make: Any) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_the_first_branch_is_a_highlight_and_the_second_is_kept_from_it(tiny: Tiny) -> None:
    with torch.inference_mode():
        with highlight(tiny.model, tiny.flags, 3.0):
            alone = tiny.model(**tiny.inputs).logits[:, -1]
        plain = tiny.model(**tiny.inputs).logits[:, -1]
        with two_branches(tiny.model, tiny.flags, 3.0):
            both = tiny.model(**twice(tiny.inputs)).logits[:, -1]
        with two_branches(tiny.model, tiny.flags, 3.0, factor=1.0):
            seen = tiny.model(**twice(tiny.inputs)).logits[:, -1]
    assert torch.allclose(both[:2], alone, atol=2e-5)
    assert not torch.allclose(both[2:], plain, atol=1e-2)
    assert torch.allclose(seen[:2], both[:2], atol=2e-5)
    assert not torch.allclose(seen[2:], both[2:], atol=1e-3)
    assert not any(module._forward_pre_hooks for module in tiny.model.modules())


def test_guided_generation_writes_the_same_in_both_halves(tiny: Tiny) -> None:
    def reply(scale: float) -> torch.Tensor:
        guide = LogitsProcessorList([TwoBranchGuidance(scale, use_log=True)])
        asked = {"max_new_tokens": 5, "do_sample": False, "logits_processor": guide}
        with two_branches(tiny.model, tiny.flags, 3.0):
            return tiny.model.generate(**twice(tiny.inputs), **asked)[:, -5:]

    with highlight(tiny.model, tiny.flags, 3.0):
        alone = tiny.model.generate(**tiny.inputs, max_new_tokens=5, do_sample=False)[:, -5:]
    one, more = reply(1.0), reply(4.0)
    assert torch.equal(one, alone.repeat(2, 1))
    assert torch.equal(more[:2], more[2:])
    assert not torch.equal(more, one)
