"""Laws of questions from annotations: the answer is what the marks say, and never in doubt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.sources.annotated import asked_about
from pipeline.sources.base import Asked, Region

SIZE = (400, 300)


def region(label: str, x0: float, y0: float, x1: float, y1: float, **more: object) -> Region:
    """A rectangular object."""
    outline = (x0, y0, x1, y0, x1, y1, x0, y1)
    box = Box(x0, y0, x1, y1)
    return replace(Region(300, 400, None, (outline,), box, label), **more)  # type: ignore[arg-type]


DOG = region("dog", 20, 100, 120, 200)
CAT = region("cat", 250, 110, 300, 150)
BIRD = region("bird", 40, 20, 70, 50)


def asked(*regions: Region, key: int = 0, most: int = 99) -> list[Asked]:
    return asked_about(regions, SIZE, rng_for(2, "annotated", key), most)


def answers(found: list[Asked], task: str) -> dict[frozenset[str], str]:
    """Answers by what a question is about, whatever the order of its words."""
    return {frozenset(q.question.split()): q.answer for q in found if q.task == task}


def of(found: list[Asked], task: str) -> list[Asked]:
    return [question for question in found if question.task == task]


def test_relations_are_those_of_the_boxes() -> None:
    said = {q.question: q.answer for q in of(asked(DOG, CAT, BIRD), "relation")}
    assert said
    where = {"the dog": DOG, "the cat": CAT, "the bird": BIRD}
    for text, answer in said.items():
        one = next(name for name in where if text.startswith(f"Is {name} "))
        other = next(name for name in where if text.endswith(f" {name}?"))
        a, b = where[one].box, where[other].box
        assert a is not None and b is not None
        right = {
            "to the left of": a.x1 <= b.x0,
            "to the right of": a.x0 >= b.x1,
            "above": a.y1 <= b.y0,
            "below": a.y0 >= b.y1,
        }
        assert right[answer], text


def test_what_overlaps_along_an_axis_is_not_related_along_it() -> None:
    found = of(asked(DOG, CAT), "relation")
    assert found and not any("above" in q.question for q in found)


def test_the_larger_is_the_one_with_more_pixels_in_its_mask() -> None:
    frame = region("frame", 10, 10, 390, 290, polygons=((10, 10, 390, 10, 390, 14, 10, 14),))
    (question,) = of(asked(DOG, frame), "size")
    assert question.answer == "the dog"
    assert not of(asked(DOG, region("cow", 200, 100, 300, 210)), "size")


def test_a_count_is_the_number_of_marks_and_a_group_is_not_counted() -> None:
    birds = [region("bird", 20 + 50 * n, 20, 50 + 50 * n, 60) for n in range(4)]
    found = {q.question: q.answer for q in of(asked(DOG, *birds), "count")}
    assert sorted(found.values()) == ["1", "4"]
    crowd = region("bird", 100, 200, 300, 280, crowd=True)
    assert [q.answer for q in of(asked(DOG, *birds, crowd), "count")] == ["1"]
    many = [region("ant", 10 + 30 * n, 20, 32 + 30 * n, 50) for n in range(12)]
    assert not of(asked(*many), "count")


def test_of_several_alike_only_the_outermost_are_named_and_only_where_they_clearly_are() -> None:
    birds = [region("bird", x, 20, x + 30, 60) for x in (20, 30, 300)]
    text = " ".join(q.question for q in asked(DOG, *birds))
    assert "the rightmost bird" in text and "leftmost" not in text and "the bird" not in text


def person(wrist_y: float, seen: float = 2) -> Region:
    points = [[60.0, 30.0, 0.0] for _ in range(17)]
    points[5], points[9] = [50.0, 100.0, 2.0], [80.0, wrist_y, seen]
    flat = tuple(value for point in points for value in point)
    return region("person", 20, 20, 120, 280, keypoints=flat)


@pytest.mark.parametrize(("wrist_y", "answer"), [(60, "higher"), (150, "lower")])
def test_a_pose_follows_from_the_joints(wrist_y: float, answer: str) -> None:
    (question,) = of(asked(person(wrist_y)), "pose")
    assert question.answer == answer and "left wrist of the person" in question.question
    (box,) = question.boxes
    assert box.contains(Box(50, min(wrist_y, 100), 80, max(wrist_y, 100)))


def test_joints_that_are_hidden_or_level_are_not_asked_about() -> None:
    assert not of(asked(person(60, seen=1)), "pose")
    assert not of(asked(person(104)), "pose")


def test_the_answer_is_an_option_and_neither_place_is_preferred() -> None:
    places = Counter(
        question.options.index(question.answer)
        for key in range(30)
        for question in asked(DOG, CAT, BIRD, person(60), key=key)
        if question.options
    )
    assert 0.4 < places[0] / places.total() < 0.6


def test_the_same_key_asks_the_same_and_no_more_than_asked_for() -> None:
    whole = asked(DOG, CAT, BIRD, person(60))
    assert asked(DOG, CAT, BIRD, person(60)) == whole
    assert asked(DOG, CAT, BIRD, person(60), most=3) == whole[:3]
    assert {q.task for q in whole} == {"relation", "size", "count", "pose"}
    assert len({q.task for q in whole[:4]}) == 4


def test_marks_of_another_frame_or_without_a_label_are_left_out() -> None:
    assert not asked(replace(DOG, width=800), replace(CAT, label=""), replace(BIRD, box=None))
