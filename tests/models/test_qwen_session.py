"""Laws of going on from what a Qwen-VL model has read: less is read, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import ConfigError, ModelError
from pipeline.grammar import BOX_END, BOX_START
from pipeline.highlight import Highlight

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.models import qwen_vl  # noqa: E402
from pipeline.models.qwen_prompt import Encoder, Message, Written  # noqa: E402
from pipeline.models.qwen_session import Session, Sessions, may_keep  # noqa: E402
from tests.models.test_qwen_vl import picture  # noqa: E402
from tests.models.watched_qwen import (  # noqa: E402
    LOGITS,
    LOOKS,
    assert_close,
    failing,
    grown,
    like,
    opening,
    plain,
    watching,
)


def test_a_growing_conversation_reads_only_what_is_new(related: qwen_vl.QwenVl) -> None:
    keeping, conversation, shown = like(related), opening(), 0
    merged = related.encoder.images.merge_size**2
    for look in (*LOOKS, None):
        with watching(related) as anew:
            whole = related.generate(conversation, max_tokens=12)
        with watching(related) as on:
            said = keeping.generate(conversation, max_tokens=12)
        assert plain(said) == whole and whole.tokens_cached == 0
        assert_close(on.logits, anew.logits)
        assert on.tokens[0] == whole.tokens_in - said.tokens_cached
        assert set(on.tokens[1:]) == {1}
        *old, new = related.prompt(conversation).written.shown
        assert said.tokens_cached >= shown
        assert on.patches == merged * new.tokens
        assert anew.patches == merged * sum(picture.tokens for picture in (*old, new))
        if look is not None:
            conversation = grown(conversation, said.text, look, key=look[0])
            shown = new.start + new.tokens


def test_a_turn_goes_on_behind_each_look_in_it(keeping: qwen_vl.QwenVl) -> None:
    forgetful, prefix = like(keeping, 0), ()
    for number, look in enumerate(LOOKS):
        begun = f"<think> The tag {BOX_START}[1, 2, 30, 40]{BOX_END}"
        prefix += (begun, picture(*look, number))
        with watching(keeping) as on:
            said = keeping.generate(opening(), prefix=prefix, max_tokens=8, keep_special=True)
        with watching(keeping) as anew:
            whole = forgetful.generate(opening(), prefix=prefix, max_tokens=8, keep_special=True)
        assert plain(said) == whole
        assert_close(on.logits, anew.logits)
        assert (said.tokens_cached > 20) == (number > 0)
        assert on.tokens[0] == whole.tokens_in - said.tokens_cached
        prefix += (said.text,)


def test_what_is_drawn_and_where_it_stops_do_not_hang_on_what_is_kept(
    keeping: qwen_vl.QwenVl,
) -> None:
    forgetful, conversation = like(keeping, 0), opening()
    for seed in range(3):
        wanted = {"temperature": 1.0, "top_p": 0.9, "seed": seed, "max_tokens": 24}
        whole = forgetful.generate(conversation, **wanted)
        word = next(w for w in (whole.text[i : i + 2] for i in range(4, 40)) if "�" not in w)
        assert plain(keeping.generate(conversation, **wanted)) == whole
        stopped = keeping.generate(conversation, stop=(word,), **wanted)
        assert plain(stopped) == forgetful.generate(conversation, stop=(word,), **wanted)
        assert stopped.stopped_at == word and stopped.tokens_cached == whole.tokens_in - 1
        conversation = grown(conversation, whole.text, LOOKS[seed])


def test_nothing_is_taken_from_beyond_a_picture_that_changed(keeping: qwen_vl.QwenVl) -> None:
    forgetful = like(keeping, 0)
    asked = grown(opening(), "{}", (84, 84), key=1)
    keeping.generate(asked, max_tokens=4)
    changed = asked[-1].parts[1].copy()
    changed.putpixel((40, 40), (1, 2, 3))
    assert changed.size == asked[-1].parts[1].size
    other = [*asked[:-1], Message("user", ("Zoomed:", changed, "Go on."))]
    with watching(keeping) as on:
        said = keeping.generate(other, max_tokens=4)
    place = keeping.prompt(other).written.shown[-1]
    assert said.tokens_cached == place.start
    assert on.patches == 4 * place.tokens
    assert plain(said) == forgetful.generate(other, max_tokens=4)
    swapped = [*opening(key=5), *asked[2:]]
    first = keeping.prompt(swapped).written.shown[0]
    assert keeping.generate(swapped, max_tokens=4).tokens_cached <= first.start
    again = keeping.generate(asked, max_tokens=4)  # and what was kept first is as good as ever
    assert again.tokens_cached == again.tokens_in - 1
    assert plain(again) == forgetful.generate(asked, max_tokens=4)


def written(encoder: Encoder, *parts: str | Image.Image) -> Written:
    return encoder.write([Message("user", parts)])


def remembered(of: Written, drawn: Sequence[int] = ()) -> Session:
    ids = torch.cat([of.ids[0], torch.tensor(drawn, dtype=torch.long)])
    pictures = {shown.start: shown.digest for shown in of.shown}
    return Session(ids, pictures, of.ids.shape[1], ())


def test_a_picture_is_the_same_whole_or_not_at_all(forgetful: qwen_vl.QwenVl) -> None:
    encoder, view = forgetful.encoder, picture(84, 84)
    one = written(encoder, "See", view, "here")
    start, tokens = one.shown[0].start, one.shown[0].tokens
    assert remembered(one).shared(one) == one.ids.shape[1]
    assert remembered(one).shared(written(encoder, "See", picture(84, 84, 9), "here")) == start
    wider = written(encoder, "See", picture(112, 84), "here")
    assert remembered(one).shared(wider) == start
    behind = remembered(one).shared(written(encoder, "See", view, "there"))
    assert behind > start + tokens
    # The token of a picture that was drawn as a word stands for none.
    bare = replace(one, ids=one.ids[:, :start], shown=())
    worded = remembered(bare, one.ids[0, start:].tolist())
    assert torch.equal(worded.ids, one.ids[0]) and worded.shared(one) == start
    half = Session(one.ids[0, : start + 2], {start: one.shown[0].digest}, start + 2, ())
    assert half.shared(one) == start


def test_the_last_token_is_always_read_and_no_picture_is_cut_in_two(
    forgetful: qwen_vl.QwenVl,
) -> None:
    one = written(forgetful.encoder, "See", picture(84, 84), "here")
    sessions = Sessions(1000)
    assert sessions.beginning(one) == (None, 0)
    sessions.keep(remembered(one), one)
    assert sessions.beginning(one)[1] == one.ids.shape[1] - 1
    shown = one.shown[0]
    bare = replace(one, ids=one.ids[:, : shown.start + shown.tokens])  # ends with a picture
    assert sessions.beginning(bare)[1] == shown.start


def test_what_is_kept_is_bounded_and_what_was_used_last_stays(forgetful: qwen_vl.QwenVl) -> None:
    asked = [opening(key) for key in range(4)]
    size = forgetful.prompt(asked[0]).ids.shape[1]
    model = like(forgetful, keep_tokens=3 * (size + 3))
    for conversation in (*asked[:3], asked[0], asked[3]):
        said = model.generate(conversation, max_tokens=4)
        assert model.tokens_kept <= 3 * (size + 3)
    assert model.generate(asked[0], max_tokens=4).tokens_cached == said.tokens_in - 1
    assert model.generate(asked[2], max_tokens=4).tokens_cached == said.tokens_in - 1
    place = model.prompt(asked[1]).written.shown[0].start
    assert model.generate(asked[1], max_tokens=4).tokens_cached <= place
    small = like(forgetful, keep_tokens=size)
    small.generate(asked[0], max_tokens=4)
    assert small.tokens_kept == 0


def test_a_conversation_that_went_on_is_kept_once(keeping: qwen_vl.QwenVl) -> None:
    first = opening()
    one = keeping.generate(first, max_tokens=4)
    assert keeping.tokens_kept == one.tokens_in + 3  # the last token drawn was not read
    second = grown(first, one.text, LOOKS[0])
    two = keeping.generate(second, max_tokens=4)
    assert keeping.tokens_kept == two.tokens_in + 3
    keeping.generate(second, max_tokens=4, temperature=1.0, seed=1)
    assert keeping.tokens_kept == two.tokens_in + 3
    keeping.generate(grown(first, one.text, LOOKS[1], key=4), max_tokens=4)  # another try
    assert keeping.tokens_kept > 2 * one.tokens_in


def test_a_beginning_not_worth_a_mask_is_read_anew(keeping: qwen_vl.QwenVl) -> None:
    system = Message("system", ("Hm.",))
    keeping.generate([system, Message("user", ("What?",))], max_tokens=2)
    long = [system, Message("user", (picture(420, 420), "What?"))]
    assert keeping.generate(long, max_tokens=2).tokens_cached == 0


def test_an_error_midway_leaves_nothing_half_read(keeping: qwen_vl.QwenVl) -> None:
    forgetful = like(keeping, 0)
    first = opening()
    said = keeping.generate(first, max_tokens=6)
    second = grown(first, said.text, LOOKS[0])
    for after in (0, 3):
        with (
            failing(keeping, RuntimeError("broken"), after=after),
            pytest.raises(ModelError, match="broken"),
        ):
            keeping.generate(second, max_tokens=6)
        assert keeping.tokens_kept == said.tokens_in + 5
    told = iter((False, False, True))
    with pytest.raises(ModelError, match="halted after 2"):
        keeping.generate(second, max_tokens=6, halt=lambda: next(told))
    again = keeping.generate(second, max_tokens=6)
    assert again.tokens_cached == again.tokens_in - 1  # what was read before the halt is good
    assert plain(again) == forgetful.generate(second, max_tokens=6)


def test_what_is_kept_makes_room_for_a_request(keeping: qwen_vl.QwenVl) -> None:
    first = opening()
    whole = keeping.generate(first, max_tokens=6)
    with failing(keeping, torch.OutOfMemoryError("full"), after=2):
        again = keeping.generate(first, max_tokens=6)
    assert again == whole and again.tokens_cached == 0
    assert keeping.tokens_kept == whole.tokens_in + 5
    with (
        failing(like(keeping), torch.OutOfMemoryError("full"), after=0),
        pytest.raises(ModelError, match="no memory"),
    ):
        like(keeping).generate(first, max_tokens=6)


def test_nothing_is_kept_where_it_may_not_be(forgetful: qwen_vl.QwenVl) -> None:
    forgetful.generate(opening(), max_tokens=2)
    assert forgetful.tokens_kept == 0
    assert forgetful.generate(opening(), max_tokens=2).tokens_cached == 0
    with pytest.raises(ConfigError, match="-1 tokens"):
        like(forgetful, -1)
    config = forgetful.model.config.to_dict()
    config["text_config"] |= {
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 0,
        "layer_types": ["sliding_attention"] * 2,
    }
    windowed = SimpleNamespace(config=type(forgetful.model.config).from_dict(config))
    assert may_keep(forgetful.model) and not may_keep(windowed)


def test_what_was_highlighted_is_not_gone_on_from(keeping: qwen_vl.QwenVl) -> None:
    plainly = keeping.generate(opening(), max_tokens=6)
    kept = keeping.tokens_kept
    lit = Highlight(boxes=((0.0, 0.0, 0.5, 0.5),), weight=50.0)
    with watching(keeping) as changed:
        shown = keeping.generate(opening(), max_tokens=6, highlight=lit)
    assert (shown.tokens_cached, keeping.tokens_kept) == (0, kept)
    with watching(keeping) as usual:
        assert plain(keeping.generate(opening(), max_tokens=6)) == plainly
    difference = (changed.logits[0] - usual.logits[0]).abs().max()
    assert difference > 1000 * LOGITS * usual.logits[0].abs().max()
    off = keeping.generate(opening(), max_tokens=6, highlight=replace(lit, weight=1.0))
    assert off == plainly and keeping.tokens_kept == kept
    with pytest.raises(ConfigError, match="picture"):
        keeping.generate([Message("user", ("?",))], highlight=lit)


def test_a_picture_of_a_known_size_is_cut_only_when_it_is_read(forgetful: qwen_vl.QwenVl) -> None:
    cut: list[tuple[int, int]] = []
    images = forgetful.encoder.images

    class Counting:
        merge_size = images.merge_size

        def __call__(self, pictures: list[Image.Image], **settings: Any) -> Any:
            cut.extend(picture.size for picture in pictures)
            return images(pictures, **settings)

    encoder = Encoder(forgetful.encoder.tokenizer, Counting())
    model = qwen_vl.QwenVl(forgetful.model, encoder, "counted")
    conversation = opening()
    for number in range(3):
        conversation = grown(conversation, "{}", LOOKS[number], number)
        model.generate(conversation, max_tokens=2)
    assert cut == [(140, 112), *LOOKS]
    ids, inputs = encoder.encode(conversation)
    assert torch.equal(ids, forgetful.prompt(conversation).ids)
    expected = forgetful.prompt(conversation).images
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
