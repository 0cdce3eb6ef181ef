"""Laws of the pocket VLM's figures: answers, looks, and what is no answer, are counted as such."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.train.pocket_vlm_chats import chat_of
from pipeline.train.pocket_vlm_scenes import held_out_scene

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.train.pocket_vlm import PocketVlm  # noqa: E402
from pipeline.train.pocket_vlm_eval import AT_ONCE, Asked, evaluate, speaker  # noqa: E402

pytestmark = pytest.mark.torch

COUNT = 10
"""Held-out scenes, of both kinds."""


def test_an_answer_is_met_as_it_was_given_with_and_without_a_look() -> None:
    wanted = {}
    for number in range(COUNT):
        chat = chat_of(held_out_scene(number), "whole")
        wanted[chat.views[0].tobytes()] = chat.messages

    def knows(asked: Any) -> list[str]:
        return [wanted[views[0].tobytes()][len(m)]["content"][0]["text"] for m, views in asked]

    figures = evaluate(knows, COUNT)
    assert figures["readable"].scenes + figures["small"].scenes == COUNT
    assert figures["readable"].right == figures["readable"].scenes
    assert figures["small"].right == figures["small"].looked == figures["small"].held
    assert figures["small"].right == figures["small"].scenes > 0
    assert figures["readable"].looked == 0

    def silent(asked: list[Asked]) -> list[str]:
        return ["" for _ in asked]

    def astray(asked: list[Asked]) -> list[str]:
        return [_call("[990, 990, 1400, 1400]") if len(m) == 2 else "" for m, _ in asked]

    def elsewhere(asked: list[Asked]) -> list[str]:
        return [_call("[0, 0, 6, 6]") if len(m) == 2 else "" for m, _ in asked]

    for speak, looked in ((silent, 0), (astray, 0), (elsewhere, COUNT)):
        told = evaluate(speak, COUNT).values()
        assert sum(one.looked for one in told) == looked
        assert sum(one.right + one.held for one in told) == 0


def _call(box: str) -> str:
    call = f'{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": {box}}}}}'
    return f"<think> x </think>\n<tool_call>\n{call}\n</tool_call>"


def test_a_model_speaks_the_same_alone_and_among_others() -> None:
    torch.manual_seed(0)
    model = PocketVlm().eval().qwen
    asked: list[Asked] = []
    for number in range(1, 3):
        chat = chat_of(held_out_scene(number), "whole")
        asked.append((chat.messages[:-1], chat.views))
    speak = speaker(model)
    together = speak(asked)
    assert together == [speak([one])[0] for one in asked]
    assert all(text.startswith(AT_ONCE) for text in speaker(model, begun=AT_ONCE)(asked))
