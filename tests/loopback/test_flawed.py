"""Laws of the flawed model: what it plants is what it notes, and else it does everything right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pipeline.agent.chat import Reply, Request, Sampling
from pipeline.agent.critic import verify
from pipeline.agent.desk import Desk, Task
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.faithful import Auditor, faults
from pipeline.agent.families import FAMILIES
from pipeline.agent.review import BlindCritic, Narrator
from pipeline.agent.task_writer import Refused, TaskWriter, Written
from pipeline.agent.tools import Tools
from pipeline.agent.vision import VisionPolicy
from pipeline.agent.vision_tools import Eyes, VisionTools
from pipeline.agent.wire import DataUrls, body_of
from pipeline.geometry import Box
from pipeline.samples import Sample, Truth
from pipeline.trajectory import Trajectory
from tests.agent.fakes import GroundSegmenter, Paper
from tests.loopback.flawed import LOOKING_FLAWS, READING_FLAWS, Flawed
from tests.loopback.flawed_pictures import MOST, SIZE, Scene, grounds, make_scene
from tests.loopback.flawed_questions import QUESTION_FLAWS

pytestmark = pytest.mark.work

BUDGETS = (224, 448, 1024)
SCENES = tuple(make_scene(number, 0) for number in range(2))
IMAGES = {scene.name: scene.image for scene in SCENES}
STOPS = {
    "other_region": {"unanswerable_from_crop"},
    "wrong_truth": {"unanswerable_from_crop"},
    "tells_place": {"leaks_place"},
    "tells_answer": {"leaks_answer"},
    "from_whole": {"answerable_from_whole"},
    "blind": {"answerable_blind"},
    "ambiguous": {"ambiguous"},
    "vague": {"ambiguous"},
    "yes_no": {"yes_no"},
}
"""What is to stop each flawed question."""


@dataclass(frozen=True)
class Direct:
    """The brain without a server."""

    brain: Flawed
    urls: DataUrls

    name = "flawed"

    async def reply(self, request: Request) -> Reply:
        return Reply(self.brain(body_of(self.name, request, self.urls)), "stop")

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def sees() -> Flawed:
    """The views are encoded once."""
    return Flawed(SCENES, BUDGETS)


def brain(sees: Flawed, questions: float, paths: float, seed: int = 0) -> Flawed:
    """The same eyes, other habits."""
    sees.question_share, sees.path_share, sees.seed = questions, paths, seed
    sees.questions, sees.paths = {}, {}
    return sees


def eyes(model: Flawed) -> Eyes:
    desk = Desk(Direct(model, DataUrls(1 << 24)), Paper(), Task("s", 0))
    return Eyes(desk, FAMILIES["qwen2.5-vl"], Sampling())


def wrote(model: Flawed, scene: Scene, box: Box) -> Written | Refused:
    return asyncio.run(TaskWriter(eyes(model), BUDGETS).write(IMAGES[scene.name], box))


def test_without_flaws_every_tag_gives_a_question_and_nothing_else_does(sees: Flawed) -> None:
    model = brain(sees, 0, 0)
    for scene in SCENES:
        for tag in scene.tags:
            told = wrote(model, scene, tag.box.enlarge(1.1, SIZE))
            assert isinstance(told, Written) and told.answer == tag.code
    nowhere = wrote(model, SCENES[0], empty(SCENES[0]))
    assert isinstance(nowhere, Refused) and nowhere.reason == "nothing_to_ask"
    assert set(model.questions.values()) == {""}


def empty(scene: Scene) -> Box:
    places = (Box(x, y, x + 90, y + 90) for x in range(60, 1200, 40) for y in range(60, 900, 40))
    wide = (tag.box.enlarge(3, SIZE) for tag in scene.tags)
    taken = list(wide)
    return next(p for p in places if not any(p.intersection(t) for t in taken))


def test_every_flawed_question_is_noted_and_stopped_by_what_it_is_for(sees: Flawed) -> None:
    found: dict[str, set[str]] = {}
    for seed in range(4):
        model = brain(sees, 1, 0, seed)
        for scene in SCENES:
            for tag in scene.tags:
                told = wrote(model, scene, tag.box)
                assert isinstance(told, Refused), told
                flaw = model.questions[scene.name, told.question]
                found.setdefault(flaw, set()).add(told.reason)
    assert set(found) == set(QUESTION_FLAWS)
    assert found == STOPS


def walked(model: Flawed, scene: Scene, budget: int) -> list[tuple[str, Trajectory, Episode]]:
    """Each tag's path at a budget, judged, and its flaw."""
    done = []
    for number, tag in enumerate(scene.tags):
        look = eyes(model)
        text = f"What is written on the {tag.name}?"
        sample = Sample(f"{scene.name}#{number}", scene.name, IMAGES[scene.name], SIZE, text)
        episode = asyncio.run(
            run_episode(
                sample,
                VisionPolicy("flawed", look, 5),
                VisionTools(Tools(sample.image, GroundSegmenter()), look),
                Limits(budget),
                critic=BlindCritic(look),
                summariser=Narrator(look),
            )
        )
        path = verify(episode.trajectory, Truth(sample.sample_id, tag.code, (tag.box,)))
        flaw = model.paths[scene.name, text, path.view.size]
        said = faults(sample, path, episode.turns)
        done.append((flaw, path, episode))
        assert bool(said) == (flaw in _UNFAITHFUL), (flaw, said, path)
        audited = asyncio.run(Auditor(look).review(sample, path, episode.turns))
        assert bool(audited) == (flaw in ("unseen_fact", "unseen_place")), (flaw, audited)
    return done


_UNFAITHFUL = ("early_thought", "early_summary", "unseen_fact", "unseen_box")


def objections(turns: Sequence[object]) -> int:
    return sum(getattr(turn, "role", "") == "critic" for turn in turns)


def test_without_flaws_every_path_is_right_needed_and_faithful(sees: Flawed) -> None:
    model = brain(sees, 0, 0)
    zooms = set()
    for scene in SCENES:
        for budget in BUDGETS:
            for flaw, path, episode in walked(model, scene, budget):
                assert flaw == "" and path.verified and objections(episode.turns) == 0
                assert all((step.checks["target_iou"] or 0) > 0.5 for step in path.steps)
                zooms.add((budget, path.num_zooms))
    assert {(224, 1), (448, 1), (1024, 0)} <= zooms and (224, 0) not in zooms


def test_every_flawed_path_is_what_its_name_says(sees: Flawed) -> None:
    seen = set()
    for seed, budget in ((0, 224), (1, 224), (0, 1024)):
        model = brain(sees, 0, 1, seed)
        for scene in SCENES:
            for flaw, path, episode in walked(model, scene, budget):
                seen.add(flaw)
                assert path.verified == (flaw != "wrong_answer")
                if flaw == "elsewhere":
                    assert path.steps[-1].checks["target_iou"] == 0
                    assert objections(episode.turns) == 2
                if flaw == "needless":
                    assert path.num_zooms == 1
    assert seen >= {*LOOKING_FLAWS, *READING_FLAWS}


def test_the_same_seed_has_the_same_flaws_in_whatever_order_it_is_asked(sees: Flawed) -> None:
    boxes = [(SCENES[1], tag.box) for tag in SCENES[1].tags]
    noted = []
    for order in (boxes, boxes[::-1]):
        model = brain(sees, 0.5, 0)
        for scene, box in order:
            wrote(model, scene, box)
        noted.append(dict(model.questions))
    assert noted[0] == noted[1] and {"", *noted[0].values()} > {""}


def test_a_reader_that_slips_reads_another_code_and_a_good_question_is_refused(
    sees: Flawed,
) -> None:
    model = brain(sees, 0, 0)
    model.slip_share = 1.0
    told = wrote(model, SCENES[0], SCENES[0].tags[0].box)
    model.slip_share = 0.0
    assert isinstance(told, Refused) and told.reason == "unanswerable_from_crop"
    assert told.detail[:3] == told.answer[:3] and told.detail != told.answer


def test_every_picture_has_a_ground_of_its_own() -> None:
    assert len(set(grounds(0))) == len(grounds(0)) == MOST
