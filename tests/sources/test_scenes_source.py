"""Laws of the drawn source."""

from __future__ import annotations

import numpy as np

from pipeline.sources.base import Picture
from pipeline.sources.scenes import ScenesSource

SMALL = (192, 144)


def drawn(count: int, seed: int = 0) -> dict[str, Picture]:
    source = ScenesSource(count, seed, SMALL)
    return {p.image_id: p for entry in source.entries() for p in source.pictures(entry)}


def test_a_scene_depends_on_its_number_and_the_seed_only() -> None:
    few, more, other = drawn(1), drawn(2), drawn(1, seed=1)
    assert list(more) == ["000000", "000001"]
    first = np.asarray(few["000000"].image)
    assert first.shape == (144, 192, 3)
    assert (first == np.asarray(more["000000"].image)).all()
    assert (first != np.asarray(more["000001"].image)).any()
    assert (first != np.asarray(other["000000"].image)).any()


def test_keys_ascend_whatever_the_count() -> None:
    keys = [entry.key for entry in ScenesSource(1001).entries()]
    assert keys == sorted(keys)
    assert keys[:256] == [entry.key for entry in ScenesSource().entries()]
