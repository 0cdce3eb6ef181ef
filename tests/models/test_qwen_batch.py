"""Laws of a padded batch of a Qwen-VL model: each row is what it would be alone."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError, ModelError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.models import qwen_vl  # noqa: E402
from pipeline.models.generation import Draw  # noqa: E402
from pipeline.models.qwen_batch import Row  # noqa: E402
from pipeline.models.qwen_prompt import Message  # noqa: E402
from tests.models.test_qwen_vl import picture  # noqa: E402
from tests.models.watched_qwen import (  # noqa: E402
    LOOKS,
    assert_close,
    failing,
    grown,
    like,
    opening,
    plain,
    watching,
)


def rows_of_a_batch() -> list[list[Message]]:
    """Unequal in tokens, pictures and looks; one has no picture at all."""
    wide = grown(opening(3, (224, 84)), "{}", LOOKS[1])
    return [opening(), [Message("user", ("Say it.",))], grown(wide, "[]", LOOKS[2], 7), wide]


def test_a_padded_batch_says_what_each_row_says_alone(related: qwen_vl.QwenVl) -> None:
    keeping, conversations = like(related), rows_of_a_batch()
    for look in (*LOOKS[:2], None):
        with watching(related) as batched:
            together = keeping.generate_batch(conversations, max_tokens=8)
        assert like(related, 0).generate_batch(conversations, max_tokens=8) == [
            plain(said) for said in together
        ]
        assert len({said.tokens_in for said in together}) == 4
        held = {said.tokens_cached for said in together}
        assert len(held) == (1 if look is LOOKS[0] else 4)
        for number, conversation in enumerate(conversations):
            with watching(related) as alone:
                said = related.generate(conversation, max_tokens=8)
            assert plain(together[number]) == said
            assert_close([batched.logits[0][number]], [alone.logits[0][0]])
            if look is not None and number != 1:
                conversations[number] = grown(conversation, said.text, look, key=number)


def test_the_logits_of_every_step_of_a_batch_are_those_of_its_rows(keeping: qwen_vl.QwenVl) -> None:
    conversations = rows_of_a_batch()
    keeping.generate(conversations[3], max_tokens=3)
    with watching(keeping) as batched:
        said = keeping.generate_batch(conversations, max_tokens=6)
    assert {reply.finish for reply in said} == {"length"} and said[2].tokens_cached > 0
    for number, conversation in enumerate(conversations):
        with watching(keeping) as alone:
            like(keeping, 0).generate(conversation, max_tokens=6)
        assert_close([step[number] for step in batched.logits], [s[0] for s in alone.logits])


def test_each_row_of_a_batch_ends_for_itself(keeping: qwen_vl.QwenVl) -> None:
    forgetful, conversations = like(keeping, 0), rows_of_a_batch()
    wanted = {"temperature": 1.0, "max_tokens": 20, "stop": ("e", "an", "�")}
    prefixes = [(), ("<think>",), (), ("I see", picture(56, 56, 3))]
    with watching(keeping) as watched:
        together = keeping.generate_batch(
            conversations, prefixes=prefixes, seeds=range(4), **wanted
        )
    alone = [
        forgetful.generate(conversation, prefix=prefix, seed=seed, **wanted)
        for seed, (conversation, prefix) in enumerate(zip(conversations, prefixes, strict=True))
    ]
    assert together == alone
    sizes = [len(logits) for logits in watched.logits]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 4 > sizes[-1]
    assert len(sizes) == max(said.tokens_out for said in alone)
    grew = [grown(c, said.text, LOOKS[0]) for c, said in zip(conversations, alone, strict=True)]
    on = keeping.generate_batch(grew, seeds=range(4), **wanted)
    for seed, (conversation, said) in enumerate(zip(grew, on, strict=True)):
        assert said.tokens_cached > 0
        assert plain(said) == forgetful.generate(conversation, seed=seed, **wanted)


def test_a_stop_string_that_only_a_torn_letter_makes_ends_no_row(
    forgetful: qwen_vl.QwenVl,
) -> None:
    encoder, prompt = forgetful.encoder, forgetful.prompt(opening())
    row = Row(prompt, Draw(0.0, 1.0, 0), 100, encoder.decode, (), ("�é", "stop"))
    tokens = encoder.tokenizer.encode("é" * 20, add_special_tokens=False)
    assert len(tokens) == 40  # the last few of which may begin in the middle of a letter
    assert [row.hear(token) for token in tokens] == [None] * 40
    *others, last = encoder.tokenizer.encode("stop", add_special_tokens=False)
    assert [row.hear(token) for token in others] == [None] * len(others)
    assert row.hear(last).text == "é" * 20


def test_a_batch_that_fails_or_halts_is_none(keeping: qwen_vl.QwenVl) -> None:
    conversations = rows_of_a_batch()
    assert keeping.generate_batch([]) == []
    with pytest.raises(ConfigError, match="for each conversation"):
        keeping.generate_batch(conversations, seeds=[1])
    with pytest.raises(ConfigError, match="1 token"):
        keeping.generate_batch(conversations, max_tokens=0)
    with (
        failing(keeping, RuntimeError("broken"), after=1),
        pytest.raises(ModelError, match="broken"),
    ):
        keeping.generate_batch(conversations, max_tokens=4)
    assert keeping.tokens_kept == 0
    told = iter((False, False, True))
    with pytest.raises(ModelError, match="4 replies unfinished"):
        keeping.generate_batch(conversations, max_tokens=4, halt=lambda: next(told))
    assert keeping.tokens_kept > 0
    alone = [like(keeping, 0).generate(c, max_tokens=4) for c in conversations]
    assert [plain(s) for s in keeping.generate_batch(conversations, max_tokens=4)] == alone
