"""Laws of the probes: without a look, and from a crop alone, they answer what can be seen there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.chat import Picture, Sampling
from pipeline.agent.critic import verify
from pipeline.agent.desk import Desk, Task
from pipeline.agent.encoding import encoded
from pipeline.agent.episode import Limits, run_episode
from pipeline.agent.families import FAMILIES
from pipeline.agent.glyph_reader import Reading
from pipeline.agent.probes import PROMPTS_SHA256, ScriptedProber, VisionProber, settled
from pipeline.agent.scripted import READABLE_PX, ScriptedPolicy
from pipeline.agent.tools import Tools
from pipeline.agent.vision_tools import Eyes
from pipeline.answers import box_of, is_right
from pipeline.errors import ContextOverflow
from pipeline.geometry import Box, view_size
from pipeline.samples import Sample, Truth, rng_for
from pipeline.scenes.sign_questions import ABOVE, COMPARE, NEAREST, READ, REFUSALS
from pipeline.trajectory import Observation, Trajectory
from pipeline.views import View, ViewBox, first_view, shown, zoomed
from tests.agent.fakes import Agrees, GroundSegmenter, ListModel, Paper, board, sample_of, tag
from tests.agent.sign_fakes import Eyes as Signs
from tests.agent.sign_fakes import ramp
from tests.agent.test_scripted import NEAR, TAGS, read
from tests.agent.test_sign_script import SIGNS, SIZE

PICTURE = board(TAGS)
QWEN = FAMILIES["qwen2.5-vl"]


def solved(sample: Sample, tools: Tools, budget: int = 224) -> Trajectory:
    """The path where nobody objects: an objection leads to a look that was not needed."""
    limits = Limits(budget, looks=9)
    done = run_episode(sample, ScriptedPolicy(), tools, limits, critic=Agrees())
    return asyncio.run(done).trajectory


def last_look(sample: Sample, path: Trajectory) -> View:
    seen = path.steps[-1].observation
    assert seen is not None
    return shown(sample.image, seen)


def unaided(sample: Sample, tools: Tools, budget: int = 224) -> str:
    return asyncio.run(ScriptedProber(ScriptedPolicy(), tools).unaided(sample, budget))


def from_crop(sample: Sample, tools: Tools, look: View) -> str:
    return asyncio.run(ScriptedProber(ScriptedPolicy(), tools).from_crop(sample, look))


def in_first_view(box: Box, sample: Sample, budget: int) -> float:
    """Side of a box in the first view, pixels."""
    return box.width * view_size(sample.size, budget)[0] / sample.size[0]


def test_a_tag_is_read_unaided_only_where_the_first_view_shows_it_large_enough() -> None:
    tools, read_there = Tools(PICTURE, GroundSegmenter()), []
    for one in TAGS:
        sample = sample_of(PICTURE, read(one.name))
        for budget in (112, 224, 448, 672):
            said = unaided(sample, tools, budget)
            if in_first_view(one.box, sample, budget) < READABLE_PX:
                assert said == ""
            else:
                assert said in (one.code, "")
                read_there.append(said == one.code)
    assert 8 <= len(read_there) < 16 and np.mean(read_there) > 0.7


def test_a_look_was_needed_exactly_where_the_path_took_one() -> None:
    tools = Tools(PICTURE, GroundSegmenter())
    for one in TAGS:
        sample = sample_of(PICTURE, read(one.name))
        looks = solved(sample, tools).num_zooms
        assert (unaided(sample, tools) != one.code) == (looks > 0)


@pytest.mark.parametrize("name", ["red star", "blue circle"])
def test_what_a_tag_says_is_read_from_the_crop_alone(name: str) -> None:
    sample, tools = sample_of(PICTURE, read(name)), Tools(PICTURE, GroundSegmenter())
    look = last_look(sample, solved(sample, tools))
    assert from_crop(sample, tools, look) == {t.name: t.code for t in TAGS}[name]


def test_which_tag_is_nearest_cannot_be_told_from_the_crop_alone() -> None:
    near = tag("green square", "HFM", (240, 60), 56)
    picture = board((TAGS[0], near, TAGS[1]))
    tools, sample = Tools(picture, GroundSegmenter()), sample_of(picture, NEAR.format("red star"))
    path = solved(sample, tools)
    assert path.answer == "HFM" and path.num_zooms > 0
    crop = zoomed(picture, near.box, 224, 0)
    assert from_crop(sample, tools, crop) == ""
    assert from_crop(sample_of(picture, read("green square")), tools, crop) == "HFM"


@pytest.mark.parametrize(
    ("question", "answer"),
    [(READ.format("GATE"), "471"), (ABOVE.format("905"), "DOCK"), (NEAREST.format("DOCK"), "")],
)
def test_signs_are_read_from_a_crop_as_large_as_they_are_and_neighbours_are_not(
    question: str, answer: str
) -> None:
    image = ramp(SIZE)
    tools = Tools(image, GroundSegmenter(), reader=Signs(SIGNS, SIZE))
    sample = sample_of(image, question + REFUSALS)
    path = solved(sample, tools, 336)
    assert path.num_zooms > 0
    sign = {"471": SIGNS[0], "DOCK": SIGNS[2], "": SIGNS[0]}[answer]
    assert from_crop(sample, tools, zoomed(image, sign.box, 336, 0)) == answer


def test_signs_are_compared_from_one_crop_only_where_it_shows_both() -> None:
    image = ramp(SIZE)
    tools = Tools(image, GroundSegmenter(), reader=Signs(SIGNS, SIZE))
    sample = sample_of(image, COMPARE.format("GATE", "HALL") + REFUSALS)
    both = zoomed(image, Box(130, 120, 266, 160), 336, 0)
    assert from_crop(sample, tools, both) == "GATE"
    assert from_crop(sample, tools, zoomed(image, SIGNS[0].box, 336, 0)) == ""


def test_a_refusal_is_no_answer_of_a_probe() -> None:
    image = ramp(SIZE)
    tools = Tools(image, GroundSegmenter(), reader=Signs((), SIZE))
    sample = sample_of(image, READ.format("GATE") + REFUSALS)
    assert solved(sample, tools, 672).answer == "no such sign"
    assert unaided(sample, tools, 672) == ""


@pytest.mark.parametrize(
    "question",
    [
        "Which of the four close-ups below the photograph shows the place in the red frame?",
        "How many red star tags are in the picture?",
        "What is the name of the dog?",
    ],
)
def test_a_question_that_one_crop_cannot_answer_is_left_open(question: str) -> None:
    sample, tools = sample_of(PICTURE, question), Tools(PICTURE, GroundSegmenter())
    assert from_crop(sample, tools, zoomed(PICTURE, TAGS[0].box, 224, 0)) == ""


def test_a_guess_that_is_forced_is_no_answer_of_a_probe() -> None:
    class Doubtful(Signs):
        def read_lines(self, view: np.ndarray, box: ViewBox) -> list[Reading]:
            said = super().read_lines(view, box)
            return [replace(reading, confidence=min(0.5, reading.confidence)) for reading in said]

    image = ramp(SIZE)
    tools = Tools(image, GroundSegmenter(), reader=Doubtful(SIGNS, SIZE))
    sample = sample_of(image, READ.format("PUMP") + REFUSALS)
    forced = run_episode(sample, ScriptedPolicy(), tools, Limits(448, looks=0), critic=Agrees())
    path = asyncio.run(forced).trajectory
    assert (path.answer, path.finish) == ("662", "forced")
    assert unaided(sample, tools, 448) == ""


def test_a_question_that_the_policy_does_not_know_is_left_open() -> None:
    assert unaided(sample_of(PICTURE, "Who?"), Tools(PICTURE, GroundSegmenter())) == ""


@pytest.mark.parametrize(
    "question", [read("red star"), read("green square"), NEAR.format("red star")]
)
def test_probes_follow_from_picture_question_and_box_alone(question: str) -> None:
    used = Tools(
        PICTURE, GroundSegmenter(), regions=[tag.box.enlarge(1.2, (800, 600)) for tag in TAGS]
    )
    sample = sample_of(PICTURE, question, "first#0")
    path = solved(sample, used)
    seen = zoomed(PICTURE, TAGS[0].box, 224, 3).observation
    fresh = Tools(Image.fromarray(np.asarray(PICTURE)), GroundSegmenter())
    again = replace(sample, sample_id="second#7")
    rebuilt = shown(PICTURE, Observation(seen.region, seen.size))
    warm = ScriptedProber(ScriptedPolicy(1.0), used)
    assert asyncio.run(warm.unaided(sample, 224)) == unaided(again, fresh)
    assert asyncio.run(warm.from_crop(sample, shown(PICTURE, seen))) == from_crop(
        again, fresh, rebuilt
    )
    assert path.finish == "answered"


# A model


def vision(said: str, temperature: float = 0.7) -> tuple[VisionProber, ListModel]:
    model = ListModel(others={"probe": said})
    eyes = Eyes(Desk(model, Paper(), Task("p#0", 224)), QWEN, Sampling(temperature))
    return VisionProber(eyes, Tools(PICTURE, GroundSegmenter())), model


def test_a_model_is_shown_one_picture_and_the_question_once() -> None:
    sample = replace(sample_of(PICTURE, "What is it?"), options=("a star", "a ring"))
    look = zoomed(PICTURE, TAGS[0].box, 224, 0)
    for view, way in ((first_view(PICTURE, 224), "unaided"), (look, "from_crop")):
        prober, model = vision("(A)")
        asked = prober.unaided(sample, 224) if way == "unaided" else prober.from_crop(sample, look)
        assert asyncio.run(asked) == "(A)"
        (request,) = model.asked
        picture, text = request.messages[0].parts
        assert picture == encoded(view.pixels, QWEN) and isinstance(picture, Picture)
        assert "What is it?" in text and "(B) a ring" in text and "unclear" in text
        assert request.role == "probe" and request.sampling.temperature == 0
    assert len(PROMPTS_SHA256) == 64


def test_the_same_probe_is_paid_for_once() -> None:
    prober, model = vision("A7K")
    sample = sample_of(PICTURE, read("red star"))
    for _ in range(3):
        assert asyncio.run(prober.unaided(sample, 224)) == "A7K"
    assert len(model.asked) == 1


@pytest.mark.parametrize("where", ["first view", "crop"])
def test_a_box_that_a_model_answers_with_comes_in_source_pixels(where: str) -> None:
    sample = sample_of(PICTURE, "Where is the red star? Answer with its box.")
    view = (
        first_view(PICTURE, 224) if where == "first view" else zoomed(PICTURE, TAGS[0].box, 224, 0)
    )
    size = view.observation.size
    written = QWEN.written(Box(*view.to_view(TAGS[0].box)).clip(size), size)
    prober, model = vision(json.dumps(written))
    asked = prober.unaided(sample, 224) if where == "first view" else prober.from_crop(sample, view)
    found = box_of(asyncio.run(asked))
    assert found is not None and found.iou(TAGS[0].box) > 0.7
    assert "pixels" in model.asked[0].messages[0].parts[1]


def test_what_is_more_than_a_model_can_see_is_left_open() -> None:
    class Full(ListModel):
        async def reply(self, request: object) -> object:  # type: ignore[override]
            raise ContextOverflow("too large")

    eyes = Eyes(Desk(Full(), Paper(), Task("p#0", 224)), QWEN, Sampling())
    prober = VisionProber(eyes, Tools(PICTURE, GroundSegmenter()))
    assert asyncio.run(prober.unaided(sample_of(PICTURE, "What?"), 224)) == ""


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("A7K", "A7K"),
        ("<think> It is unclear at first. </think><answer> A7K </answer>", "A7K"),
        ('"Do not enter"', "Do not enter"),
        ("no", "no"),
        ("  two\nlines ", "two lines"),
        ("unclear", ""),
        ("Unclear.", ""),
        ("I cannot read it", ""),
        ("I can't tell.", ""),
        ("It is not clearly visible, maybe A7K", ""),
        ("The text isn't legible; unknown", ""),
        ("no such sign", ""),
        ("not readable", ""),
        ("unable to determine", ""),
        ("I don't know", ""),
        ("", ""),
    ],
)
def test_whatever_says_that_it_is_unsure_is_no_answer(said: str, answer: str) -> None:
    assert settled(said) == answer


def test_among_options_words_of_doubt_are_an_answer() -> None:
    options = ("A7K", "cannot be determined")
    assert settled("cannot be determined", options) == "cannot be determined"
    assert settled("(B)", options) == "(B)"
    assert settled("cannot say", options) == ""


# The real segmenter and reader


@pytest.mark.torch
def test_on_drawn_needles_looks_are_necessary_and_crops_suffice_for_reading() -> None:
    from pipeline.models.sam import load
    from pipeline.scenes.needles import plant, questions
    from tests.synthesis.conftest import drawn

    needed: list[bool] = []
    enough: dict[str, list[bool]] = {"read": [], "nearest": [], "extreme": []}
    segmenter = load("pocket")
    for number in range(10):
        picture, tags = plant(
            drawn(number, (840, 560)), rng_for(5, number, "needles"), (224, 448, 1024)
        )
        tools = Tools(picture, segmenter)
        for asked in questions(tags, rng_for(5, number, "questions"), 2 - number % 2):
            sample = sample_of(picture, asked.text, f"{number}#0")
            path = verify(solved(sample, tools), Truth(sample.sample_id, asked.answer))
            if not path.verified:
                continue
            right = is_right(unaided(sample, tools), asked.answer)
            assert right == (path.num_zooms == 0)
            if path.num_zooms == 0:
                assert in_first_view(asked.target.box, sample, 224) >= 0.9 * READABLE_PX
                continue
            needed.append(not right)
            said = from_crop(sample, tools, last_look(sample, path))
            enough[asked.task].append(is_right(said, asked.answer))
    assert len(needed) >= 8 and all(needed)
    assert len(enough["read"]) >= 5 and np.mean(enough["read"]) >= 0.9
    assert sum(enough["nearest"]) <= len(enough["nearest"]) / 2


@pytest.mark.torch
def test_on_drawn_signs_looks_are_necessary_and_crops_suffice_for_reading() -> None:
    from pipeline.agent.pocket_reader import build_reader
    from pipeline.models.sam import load
    from pipeline.scenes.draw import scene
    from pipeline.scenes.signs import plant_signs

    segmenter, reader = load("pocket"), build_reader()
    enough = []
    for number in range(5):
        made = scene(rng_for(77, "test-scene", number), (1008, 756))
        masks = [thing.mask for thing in made.objects]
        planted = plant_signs(
            Image.fromarray(made.image), masks, rng_for(3, "p", number), (336,), drawn=True
        )
        tools = Tools(planted.image, segmenter, reader=reader)
        for sign in [sign for sign in planted.signs if sign.legible][:3]:
            sample = sample_of(planted.image, READ.format(sign.word) + REFUSALS, f"{number}#0")
            path = solved(sample, tools, 336)
            if path.answer != sign.code:
                continue
            if path.num_zooms:
                assert unaided(sample, tools, 336) == ""
                said = from_crop(sample, tools, last_look(sample, path))
                enough.append(said == sign.code)
    assert len(enough) >= 4 and np.mean(enough) >= 0.6
