"""Tens of thousands of mutated pictures through the decoder and the GPS remover (`make fuzz`)."""

from __future__ import annotations

import os
import random

import pytest

from pipeline.errors import BadImage
from pipeline.sources.gps import strip_gps
from tests.sources.test_decode import SEEDS, decode_or_refuse, mutate

ROUNDS = int(os.environ.get("COFPIPE_FUZZ_ROUNDS", "30000"))


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_hostile_pictures_are_only_ever_bad_images(seed: int) -> None:
    rng = random.Random(seed)
    for number in range(ROUNDS // 4):
        data = mutate(SEEDS[number % len(SEEDS)], rng)
        decode_or_refuse(data)
        try:
            assert len(strip_gps(data)) <= len(data)
        except BadImage:
            continue
