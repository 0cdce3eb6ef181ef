"""How many altered pictures are found, how many others are taken for them, and how fast it is."""

from __future__ import annotations

import time
from itertools import combinations

import pytest

from pipeline.eval.statistics import wilson
from pipeline.sources.fingerprints import Fingerprint, fingerprint_of
from pipeline.sources.matching import Index
from tests.bench.test_row_cost import report
from tests.sources.alterations import PARTS, WHOLE, drawn, photographs, quarters

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

SCENES = 2000
LONGEST = 4000


@pytest.fixture(scope="module")
def scenes() -> list[Fingerprint]:
    return [fingerprint_of(drawn(number)) for number in range(SCENES)]


def test_every_altered_photograph_is_found_among_the_scenes(scenes: list[Fingerprint]) -> None:
    images = photographs(LONGEST)
    if not images:
        pytest.skip("needs the photographs beside the checkout")
    index = Index([*map(fingerprint_of, images), *scenes])
    for name, alter in (WHOLE | PARTS).items():
        found = extra = 0
        for number, image in enumerate(images):
            matches = index.matches(fingerprint_of(alter(image)))
            hits = [match for match in matches if match.number == number]
            found, extra = found + len(hits), extra + len(matches) - len(hits)
        report("decontamination_recall", alteration=name, found=found, of=len(images), extra=extra)
        assert extra == 0
        assert found == len(images) or name in PARTS


def test_pictures_that_share_nothing_are_not_the_same(scenes: list[Fingerprint]) -> None:
    images = photographs(LONGEST)
    cut = [fingerprint_of(quarter) for image in images for quarter in quarters(image)]
    for name, prints in (("quarters", cut), ("scenes", scenes)):
        index = Index(prints)
        wrong = sum(len(index.matches(one, before=n)) for n, one in enumerate(prints))
        pairs = len(list(combinations(range(len(prints)), 2)))
        low, high = wilson(wrong, pairs)
        report("decontamination_false", pictures=name, pairs=pairs, wrong=wrong, low=low, high=high)
        assert wrong == 0


def test_what_a_picture_costs(scenes: list[Fingerprint]) -> None:
    images = [drawn(number) for number in range(40)]
    started = time.process_time()
    made = [fingerprint_of(image) for image in images]
    figures = {"fingerprint_ms": (time.process_time() - started) * 1e3 / len(made)}
    for count in (500, 1000, SCENES):
        index = Index(scenes[:count])
        started = time.process_time()
        for one in made:
            index.matches(one, before=0)
        figures[f"match_ms_of_{count}"] = (time.process_time() - started) * 1e3 / len(made)
    report("decontamination_cost", **figures)
