"""Laws of a highlight's bounds: one model, one context, one block, and what it refuses."""

from __future__ import annotations

import contextvars
import math
import threading
from typing import Any

import pytest

from pipeline.errors import ConfigError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from pipeline.models.vision_attention import (  # noqa: E402
    WHOLE,
    biased,
    highlight,
)
from tests.models import tiny_vlms  # noqa: E402
from tests.models.by_formula import logits  # noqa: E402
from tests.models.tiny_vlms import Tiny  # noqa: E402

KINDS = ("llava", "llava_next", "qwen")


@pytest.fixture(scope="module", params=KINDS)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return getattr(tiny_vlms, request.param)()


@pytest.fixture(scope="module")
def llava() -> Tiny:
    return tiny_vlms.llava()


def test_only_the_language_model_is_switched_and_the_old_name_comes_back(tiny: Tiny) -> None:
    config = tiny.model.config
    for name in ("eager", "sdpa"):
        tiny.model.set_attn_implementation({"text_config": name})
        with pytest.raises(ZeroDivisionError), highlight(tiny.model, tiny.flags, 2.0):
            assert config.text_config._attn_implementation == WHOLE
            assert config.vision_config._attn_implementation == "sdpa"
            raise ZeroDivisionError
        assert config.text_config._attn_implementation == name
    assert WHOLE not in str(config.to_dict())


def test_another_thread_computes_as_usual_and_a_copied_context_highlights(llava: Tiny) -> None:
    one = llava.row(0)  # without padding: plain sdpa would have no mask at all
    found: dict[str, torch.Tensor] = {}

    def at_work(name: str) -> None:
        found[name] = logits(llava.model, one)

    plain = logits(llava.model, one)
    with highlight(llava.model, llava.flags[0], 4.5):
        here = logits(llava.model, one)
        context = contextvars.copy_context()
        alone = threading.Thread(target=at_work, args=("alone",))
        sharing = threading.Thread(target=context.run, args=(at_work, "sharing"))
        for thread in (alone, sharing):
            thread.start()
            thread.join()
    assert torch.equal(found["alone"], plain)
    assert torch.equal(found["sharing"], here)
    assert not torch.allclose(here, plain, atol=1e-2)


def test_two_threads_cannot_highlight_one_model_at_the_same_time(llava: Tiny) -> None:
    """The second would switch the first one's attention off when it leaves."""
    refused: list[ConfigError] = []

    def at_work() -> None:
        try:
            with highlight(llava.model, llava.flags, 2.0):
                pass
        except ConfigError as error:
            refused.append(error)

    with highlight(llava.model, llava.flags, 4.5):
        here = logits(llava.model, llava.inputs)
        thread = threading.Thread(target=at_work)
        thread.start()
        thread.join()
        assert torch.equal(here, logits(llava.model, llava.inputs))
    assert "highlighted already" in str(refused[0])


def test_a_second_highlight_of_the_same_model_is_refused_and_of_another_one_is_not(
    llava: Tiny,
) -> None:
    other = tiny_vlms.llava(seed=1)
    plain = logits(other.model, other.inputs)
    with highlight(llava.model, llava.flags, 4.5):
        on = logits(llava.model, llava.inputs)
        assert torch.equal(plain, logits(other.model, other.inputs))
        with (
            pytest.raises(ConfigError, match="highlighted already"),
            biased(llava.model, llava.flags),
        ):
            pass
        with highlight(other.model, other.flags, 4.5):
            assert torch.equal(on, logits(llava.model, llava.inputs))
            assert not torch.equal(plain, logits(other.model, other.inputs))
        assert torch.equal(on, logits(llava.model, llava.inputs))


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("above 0", {"weight": 0.0}),
    ("above 0", {"weight": -1.0}),
    ("above 0", {"weight": math.nan}),
    ("above 0", {"weight": math.inf}),
    ("one weight", {"weight": [1.0, 2.0, 3.0]}),
    ("shares between", {"flags": torch.full((2, 24), 1.5)}),
    ("shares between", {"flags": torch.full((2, 24), math.nan)}),
    ("a row for each", {"flags": torch.zeros(2, 3, 4)}),
    ("a row for each", {"flags": []}),
    ("no part of a picture", {"flags": torch.ones(2, 23), "ids": True}),
    ("are not over", {"flags": torch.zeros(2, 22), "ids": True}),
    ("give `ids`", {"rows": "after_image"}),
    ("an array of numbers", {"flags": [[1, 0], [1]]}),
    ("not 'last'", {"rows": "last"}),
    ("no layer 2", {"layers": [0, 2]}),
    ("no head 4", {"heads": [4]}),
]


@pytest.mark.parametrize(("says", "asked"), REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_switched(
    llava: Tiny, says: str, asked: dict[str, Any]
) -> None:
    settings = {"flags": llava.flags, "weight": 2.0} | asked
    settings["ids"] = llava.ids if asked.get("ids") else None
    with pytest.raises(ConfigError, match=says), highlight(llava.model, **settings):
        raise AssertionError("it was not refused")
    assert llava.model.config.text_config._attn_implementation == "sdpa"


def test_a_batch_that_holds_no_whole_number_of_each_prompt_is_refused(llava: Tiny) -> None:
    three = torch.cat([llava.flags, llava.flags[:1]])
    with pytest.raises(ConfigError, match="3 rows do not fit a batch of 2"):  # noqa: SIM117
        with highlight(llava.model, three, 2.0):
            logits(llava.model, llava.inputs)
