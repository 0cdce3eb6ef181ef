"""Laws of an episode inside one turn (`cof-v1`): where it stops, what is put there, mistakes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from functools import partial
from typing import Any, get_args

import pytest

from pipeline.agent import roles
from pipeline.agent.actions import Action, Answer, Call, Heard
from pipeline.agent.chat import Picture, Reply, Request, Said, Sampling
from pipeline.agent.desk import Desk, Task
from pipeline.agent.encoding import encoded
from pipeline.agent.endpoint import open_endpoint
from pipeline.agent.families import FAMILIES
from pipeline.agent.inline import InlinePolicy
from pipeline.agent.vision_tools import Eyes
from pipeline.config import Endpoint
from pipeline.config_files import load_config
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Frame, FrameKind
from pipeline.grammar import BOX_END, BOX_START
from pipeline.instructions import instructions
from pipeline.turns import Mark
from pipeline.views import first_view, zoomed
from tests.agent import test_vision
from tests.agent.fakes import ListModel, Paper
from tests.agent.test_vision import AGREES, PICTURE, SAMPLE, STAR, TAGS, numbers
from tests.loopback.server import Loopback, Manner

ZOOM = Mark.ZOOMIN.value
QWEN = FAMILIES["qwen2.5-vl"]
FIRST = first_view(PICTURE, 224)
CIRCLE = TAGS[1].box

episode = partial(test_vision.episode, settings={"profile": "cof-v1"})


def named(values: object) -> str:
    return f"{BOX_START}{json.dumps(values)}{BOX_END}"


def looks(*boxes: Box, words: str = "Closer.") -> str:
    """A turn up to where it stops to see some boxes, as most servers give it: without the mark."""
    return f"<think> {words} " + " ".join(named(numbers(box)) for box in boxes) + " "


DIRECT = "<think> It says A7K. </think>\n<answer> A7K </answer>"
GOES_ON = " It says A7K. </think>\n<answer> A7K </answer>"


def planned(model: ListModel) -> list[Request]:
    return [request for request in model.asked if request.role == "planner"]


def text(request: Request) -> str:
    """What the request's open turn has begun with, pictures as `#`."""
    return "".join(p if isinstance(p, str) else "#" for p in request.prefix)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_box_in_the_models_own_numbers_is_looked_at_in_source_pixels(family: str) -> None:
    look = f"<think> Closer. {named(numbers(STAR, family))}"
    done = episode(ListModel([look, GOES_ON], AGREES), family=family)
    (step,) = done.trajectory.steps
    assert step.boxes[0].iou(STAR) > 0.7 and step.thought == "Closer."
    assert (done.trajectory.answer, done.trajectory.finish) == ("A7K", "answered")
    assert done.trajectory.final_thought == "It says A7K."


def test_the_look_is_put_behind_the_mark_and_the_same_turn_goes_on() -> None:
    model = ListModel([looks(STAR), GOES_ON], AGREES)
    done = episode(model)
    first, second = planned(model)
    frame = QWEN.frame(FIRST.observation.size)
    opening = (encoded(FIRST.pixels, QWEN), f"Question: {SAMPLE.question}")
    assert first.messages == second.messages
    assert first.messages == (
        Said("system", (instructions("cof-v1", frame),)),
        Said("user", opening),
    )
    box = done.trajectory.steps[0].boxes[0]
    seen = encoded(zoomed(PICTURE, box, 224, 0).pixels, QWEN)
    assert first.prefix == () and second.prefix == (looks(STAR) + ZOOM, seen)
    assert first.sampling.stop == (ZOOM,) and first.sampling.keep_special


def test_every_box_named_since_the_last_zoom_is_looked_at_with_the_words_before_it() -> None:
    both = f"<think> A star {named(numbers(STAR))} and {named(numbers(CIRCLE))} a circle."
    middle = Box(240, 180, 360, 280)
    again = f" Once more: {named(numbers(middle))}"
    model = ListModel([both, again, GOES_ON], AGREES)
    steps = episode(model).trajectory.steps
    assert [step.thought for step in steps] == ["A star", "and a circle.", "Once more:"]
    for step, box in zip(steps, (STAR, CIRCLE, middle), strict=True):
        assert step.boxes[0].iou(box) > 0.7
    assert [text(request) for request in planned(model)] == [
        *("", both + ZOOM + "##", both + ZOOM + "##" + again + ZOOM + "#")
    ]


def test_a_box_that_is_named_need_not_be_looked_at() -> None:
    seen = f"<think> It says A7K {named(numbers(STAR))} here. </think><answer> A7K </answer>"
    done = episode(ListModel([seen], AGREES))
    assert done.trajectory.steps == ()
    assert done.trajectory.final_thought == "It says A7K here."
    later = f" It says A7K. {named(numbers(CIRCLE))} </think><answer> A7K </answer>"
    done = episode(ListModel([looks(STAR), later], AGREES))
    assert len(done.trajectory.steps) == 1 and done.trajectory.final_thought == "It says A7K."


UNSEEN = "It says OOPS. </think><answer> OOPS </answer>"


@pytest.mark.parametrize(
    "stopped",
    [
        Reply(looks(STAR), "stop", stopped_at=ZOOM),
        Reply(looks(STAR), "stop"),
        Reply(looks(STAR) + ZOOM, "stop"),
        Reply(looks(STAR) + ZOOM + UNSEEN, "stop", stopped_at=""),
        Reply(looks(STAR), "stop", stopped_at="a word of the server's own"),
    ],
    ids=["told", "silent", "included", "ignored", "odd"],
)
def test_however_a_server_stops_at_the_mark_the_turn_goes_on_alike(stopped: Reply) -> None:
    model = ListModel([stopped, GOES_ON], AGREES)
    done = episode(model)
    assert text(planned(model)[1]) == looks(STAR) + ZOOM + "#"
    assert (done.trajectory.answer, done.trajectory.num_zooms) == ("A7K", 1)


def test_the_turns_end_that_a_server_leaves_in_the_text_is_no_part_of_it() -> None:
    model = ListModel([looks(STAR), GOES_ON + "<|im_end|>\n"], AGREES)
    done = episode(model)
    assert (done.trajectory.answer, len(planned(model))) == ("A7K", 2)


def test_a_turn_that_the_model_ended_itself_asks_for_nothing() -> None:
    """Where the server tells, nobody guesses: a thought left open is a mistake."""
    model = ListModel([Reply(looks(STAR), "stop", stopped_at=""), DIRECT], AGREES)
    done = episode(model)
    assert done.trajectory.num_zooms == 0
    assert "<think> is not closed" in planned(model)[1].messages[-1].parts[0]


FAULTS = {
    "no box": (Reply("<think> Closer. ", "stop", stopped_at=ZOOM), "follows no box"),
    "no new box": (Reply(" Again. ", "stop", stopped_at=ZOOM), "follows no box"),
    "swapped": (f"<think> {named([50, 50, 20, 20])} {ZOOM}", "no area"),
    "outside": (f"<think> {named([0, 0, 9000, 9000])} {ZOOM}", "outside the picture"),
    "one of two": (looks(STAR) + named([0, 0, 9000, 9000]) + ZOOM, "outside the picture"),
    "three numbers": (f"<think> {named([1, 2, 3])} {ZOOM}", "four numbers"),
    "no numbers": (f"<think> {named('here')} {ZOOM}", "four numbers"),
    "broken": (f"<think> {BOX_START}[1, 2,{BOX_END} {ZOOM}", "JSON"),
    "half a box": (f"<think> {BOX_START}[1, 2, 3, 4] {ZOOM}", "a mark is missing"),
    "no thought": (f"{named([1, 1, 9, 9])} {ZOOM}", "begins with <think>"),
    "after the thought": (f"<think> a </think> {named([1, 1, 9, 9])} {ZOOM}", "inside the thought"),
    "unclosed": ("<think> It says A7K.", "not closed"),
    "no answer": ("<think> It says A7K. </think>", "ends with an <answer>"),
    "empty answer": ("<think> Hm. </think><answer> </answer>", "empty"),
    "two answers": (DIRECT + "<answer> B </answer>", "one <answer>"),
    "chat": ("Let me think about it.", "outside the tags"),
    "tool": ("<think> a </think><tool_call>{}</tool_call>", "no <tool_call>"),
    "odd token": ("<think> <|im_start|> </think><answer> A </answer>", "a mark of the grammar"),
    "length": (Reply(looks(STAR), "length"), "longer"),
    "silence": ("", "begins with <think>"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_told_and_a_new_turn_begins(fault: str) -> None:
    said, why = FAULTS[fault]
    before = [looks(STAR)] if fault == "no new box" else []
    model = ListModel([*before, said, DIRECT], AGREES)
    done = episode(model)
    assert (done.trajectory.finish, done.trajectory.answer) == ("answered", "A7K")
    last = planned(model)[-1]
    assert last.prefix == () and last.messages[-1].speaker == "user"
    kept, spoken = str(last.messages[-2].parts[-1]), said.text if isinstance(said, Reply) else said
    assert kept.removesuffix(ZOOM) == spoken.removesuffix(ZOOM)
    assert fault != "length" or ZOOM not in kept
    (told,) = last.messages[-1].parts
    start, _, end = roles.MISREAD.partition("{why}")
    assert isinstance(told, str) and told.startswith(start) and told.endswith(end)
    slips = [turn.result for turn in done.turns if turn.role == "tool" and not turn.tool]
    assert len(slips) == 1 and re.search(why, slips[0])
    endless = episode(ListModel([said], AGREES))
    assert (endless.trajectory.finish, endless.reason) == ("rejected", "malformed")


def test_a_server_that_begins_the_turn_anew_is_told_apart_and_the_look_stays_in_sight() -> None:
    """As those do that close a turn with pictures instead of going on with it."""
    model = ListModel([looks(STAR), looks(CIRCLE), DIRECT], AGREES)
    done = episode(model)
    assert done.trajectory.num_zooms == 1
    last = planned(model)[-1]
    assert "begun anew" in str(last.messages[-1].parts)
    (turn,) = [said for said in last.messages if said.speaker == "assistant"]
    assert [isinstance(part, Picture) for part in turn.parts] == [False, True, False]


def test_a_look_that_a_tool_refuses_ends_the_turn_and_the_looks_that_were_due() -> None:
    model = ListModel([looks(STAR, CIRCLE), DIRECT])
    desk = Desk(model, Paper(), Task("s#0", 224))
    planner = InlinePolicy("p", Eyes(desk, QWEN, Sampling())).begin("s#0", SAMPLE.question, ())

    async def refused() -> tuple[Action, Action]:
        opening = Heard(SAMPLE.question, kind="opening", view=FIRST)
        return await planner.act(opening), await planner.act(Heard("No such place.", kind="error"))

    call, answer = asyncio.run(refused())
    assert isinstance(call, Call) and isinstance(answer, Answer)
    assert [said.speaker for said in model.asked[1].messages] == [
        *("system", "user", "assistant", "user")
    ]
    assert model.asked[1].messages[-1].parts == (roles.MISREAD.format(why="No such place."),)


def test_a_model_that_never_stops_looking_has_its_thought_closed_and_answers() -> None:
    endless = [looks(STAR), f" More: {named(numbers(CIRCLE))} ", " A7K ", "never asked"]
    model = ListModel(endless, AGREES)
    done = episode(model, looks=1)
    last = planned(model)[-1]
    assert last.prefix[1:] == (
        last.prefix[1],
        f" More: {named(numbers(CIRCLE))} </think>\n<answer>",
    )
    assert last.sampling.stop == ("</answer>",)
    assert (done.trajectory.finish, done.trajectory.answer) == ("forced", "A7K")
    assert (done.trajectory.final_thought, done.trajectory.num_zooms) == ("More:", 1)


def test_a_zoom_that_showed_one_box_and_not_the_next_keeps_its_mark() -> None:
    model = ListModel([looks(STAR, CIRCLE), "A7K</answer>"], AGREES)
    done = episode(model, looks=1)
    assert text(planned(model)[-1]) == looks(STAR, CIRCLE) + ZOOM + "# </think>\n<answer>"
    assert (done.trajectory.finish, done.trajectory.answer) == ("forced", "A7K")


@pytest.mark.parametrize("bad", ["", f"A {ZOOM}", Reply("and then the", "length")])
def test_an_answer_that_had_to_be_given_and_is_none_is_asked_for_again(bad: str | Reply) -> None:
    model = ListModel([looks(STAR), bad, " A7K "], AGREES)
    done = episode(model, looks=0)
    assert text(planned(model)[-1]) == "<think> </think>\n<answer>"
    assert done.trajectory.answer == "A7K"
    never = episode(ListModel([looks(STAR), bad], AGREES), looks=0)
    assert (never.trajectory.finish, never.reason) == ("rejected", "malformed")


def test_an_objection_begins_a_new_turn_with_all_pictures_in_sight() -> None:
    objects = {"critic": '{"supported": false, "advice": "Look at the left side."}'}
    model = ListModel([looks(STAR), GOES_ON, DIRECT], objects)
    done = episode(model, objections=1)
    last = planned(model)[-1]
    assert last.prefix == ()
    assert [said.speaker for said in last.messages] == ["system", "user", "assistant", "user"]
    before, picture, after = last.messages[2].parts
    assert (before, after) == (looks(STAR) + ZOOM, GOES_ON) and isinstance(picture, Picture)
    assert last.messages[3].parts == (roles.OBJECTION.format(text="Look at the left side."),)
    assert (done.trajectory.finish, done.trajectory.num_zooms) == ("answered", 1)


def test_a_finished_call_is_not_paid_for_again_and_the_rest_goes_on() -> None:
    turns: list[str | Reply] = [Reply(looks(STAR), "stop", stopped_at=ZOOM), GOES_ON]
    ledger = Paper()
    first = ListModel(turns, AGREES)
    done = episode(first, ledger=ledger)
    again = ListModel(["never asked"], AGREES)
    assert episode(again, ledger=ledger) == done and again.asked == []
    assert ledger.again == list(ledger.calls)
    halfway = Paper(dict(list(ledger.calls.items())[:1]))
    rest = ListModel([GOES_ON], AGREES)
    assert episode(rest, ledger=halfway) == done
    assert rest.asked == first.asked[1:]


def test_a_call_of_an_older_journal_is_found_again() -> None:
    """The key of a request that uses nothing new, and a reply that was kept without what is new."""
    messages = (Said("system", ("Look.",)), Said("user", (Picture(b"jpeg", (2, 3)), "What?")))
    request = Request("planner", messages, Sampling(0.5, 0.9, 77, ("</s>",), 3))
    key = "8e8539f8c44b03a855d659cc5371528ee3901bba3c7c563d59571d5e82e9ec3d"
    assert request.key("m") == key
    ledger = Paper()
    done = test_vision.episode(ListModel([test_vision.ANSWER], AGREES), ledger=ledger)
    for call in ledger.calls.values():
        del call["reply"]["stopped_at"]
    assert test_vision.episode(ListModel(["never"], AGREES), ledger=ledger) == done


def test_the_key_tells_what_the_turn_has_begun_with() -> None:
    picture, other = Picture(b"one", (1, 1)), Picture(b"two", (1, 1))
    prefixes = [(), ("a",), ("a", picture), ("a", other), (picture, "a"), ("a", picture, picture)]
    keys = {Request("planner", (), prefix=prefix).key("m") for prefix in prefixes}
    keys.add(Request("planner", (), Sampling(keep_special=True)).key("m"))
    assert len(keys) == len(prefixes) + 1
    assert Request("planner", (), prefix=("a", picture)).affinity == picture.sha256
    asked = (Said("user", (other,)),)
    assert Request("planner", asked, prefix=("a", picture)).affinity == other.sha256


def test_the_wording_of_the_profile_counts_in_its_digest_alone() -> None:
    assert roles.prompts_sha256("cof-v2") == roles.PROMPTS_SHA256
    one = (1, 1)
    frames = [Frame("pixels", one, one), *(Frame(k, one) for k in get_args(FrameKind)[1:])]
    told = [roles.PROMPTS_SHA256, *(instructions("cof-v1", frame) for frame in frames)]
    assert InlinePolicy.prompt_sha256 == roles.prompts_sha256("cof-v1")
    assert InlinePolicy.prompt_sha256 == hashlib.sha256("\n".join(told).encode()).hexdigest()


def test_native_tools_do_not_go_with_it() -> None:
    with pytest.raises(ConfigError, match="native tools"):
        load_config(sets=["policy.profile=cof-v1", "policy.native_tools=true"])


@pytest.mark.parametrize("manner", ["vllm", "sglang", "silent"])
def test_a_server_is_asked_to_go_on_and_tells_where_it_stopped(manner: Manner) -> None:
    sent: list[dict[str, Any]] = []

    def brain(body: dict[str, Any]) -> str:
        sent.append(body)
        return looks(STAR) + ZOOM + UNSEEN if len(sent) == 1 else GOES_ON

    picture = encoded(FIRST.pixels, QWEN)
    sampling = Sampling(stop=(ZOOM,), keep_special=True)
    begun = Request("planner", (Said("user", (picture, "?")),), sampling)
    on = Request("planner", begun.messages, sampling, prefix=("<think> …", picture))

    async def ask(url: str) -> list[Reply]:
        model = await open_endpoint(Endpoint(urls=(url,)), "loopback")
        replies = [await model.reply(begun), await model.reply(on)]
        await model.close()
        return replies

    with Loopback(brain, manner=manner) as server:
        first, second = asyncio.run(ask(server.url))
    assert (first.text, second.text) == (looks(STAR), GOES_ON)
    ended = {"vllm": (ZOOM, None), "sglang": (ZOOM, ""), "silent": (None, None)}[manner]
    assert (first.stopped_at, second.stopped_at) == ended
    assert all(body["skip_special_tokens"] is False for body in sent)
    last = sent[1]["messages"][-1]
    assert last["role"] == "assistant" and "continue_final_message" not in sent[0]
    assert [part["type"] for part in last["content"]] == ["text", "image_url", "text"]
    assert last["content"][-1]["text"] == ""
    assert sent[1]["continue_final_message"] and not sent[1]["add_generation_prompt"]
