"""Laws of fingerprints: what an alteration leaves alone, and what it may not."""

from __future__ import annotations

import hashlib
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadImage
from pipeline.sources.fingerprints import (
    THUMB,
    fingerprint,
    fingerprint_of,
    side_by_side,
    whole_hash,
)
from tests.sources.alterations import WHOLE, drawn
from tests.sources.pictures import encoded


def test_the_same_pixels_have_one_digest_however_they_are_encoded() -> None:
    image = drawn(0)
    first, second = (fingerprint(encoded(image, kind)) for kind in ("PNG", "BMP"))
    assert first.pixels == second.pixels and first.sha256 != second.sha256
    assert first.sha256 == hashlib.sha256(encoded(image)).hexdigest()
    changed = image.copy()
    changed.putpixel((7, 9), (1, 2, 3))
    assert fingerprint_of(changed).pixels != first.pixels


def thumb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((THUMB, THUMB), Image.Resampling.BICUBIC))


def test_a_fingerprint_follows_from_the_bytes_alone() -> None:
    first, second = (fingerprint(encoded(drawn(1))) for _ in range(2))
    assert first.hash == second.hash
    assert np.array_equal(first.codes, second.codes)
    assert np.array_equal(first.places, second.places)


@pytest.mark.parametrize("name", ["half", "jpeg 40", "a fifth brighter", "a fifth darker"])
def test_the_hash_of_the_whole_hardly_changes_while_the_picture_stays(name: str) -> None:
    images = [drawn(number) for number in range(12)]
    own, other = ([whole_hash(thumb(i)) for i in of] for of in (images, map(WHOLE[name], images)))
    assert max((a ^ b).bit_count() for a, b in zip(own, other, strict=True)) <= 8
    assert min((a ^ b).bit_count() for a, b in pairwise(own)) > 12


def test_places_are_found_again_where_they_were_in_a_picture_of_half_the_size() -> None:
    image = drawn(2).resize((896, 672), Image.Resampling.BICUBIC)
    whole, half = fingerprint_of(image), fingerprint_of(WHOLE["half"](image))
    off = np.bitwise_count(whole.codes[:, None] ^ half.codes[None]).sum(-1)
    at = np.abs(whole.places[:, None, :2].astype(float) - half.places[None, :, :2]).max(-1)
    there = ((off <= 16) & (at < 0.005)).any(1)
    assert there.mean() > 0.8


def test_a_picture_without_structure_has_no_places() -> None:
    plain = fingerprint_of(Image.new("RGB", (300, 200), (90, 120, 60)))
    assert len(plain.codes) == len(plain.places) == 0


@pytest.mark.parametrize("size", [(28, 28), (2000, 28), (28, 2000), (29, 640)])
def test_pictures_of_any_shape_have_one(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    made = fingerprint_of(Image.fromarray(noise))
    assert made.codes.shape == (len(made.places), 2) and made.thumb.shape == (128, 128)
    assert made.codes.dtype == np.uint64 and made.places.shape[1] == 3


def test_a_reduced_one_keeps_the_digests_and_the_strongest_places() -> None:
    made = fingerprint_of(drawn(3))
    less = made.reduced(64, 48)
    assert (less.pixels, less.hash, less.size) == (made.pixels, made.hash, made.size)
    assert less.thumb.shape == (64, 64) and np.array_equal(less.codes, made.codes[:48])


def test_bytes_that_are_no_picture_are_a_bad_image() -> None:
    with pytest.raises(BadImage):
        fingerprint(b"\xff\xd8\xff\xe0 no picture")


def test_work_side_by_side_comes_in_order_and_no_more_is_held_than_twice_the_threads() -> None:
    begun, lock = 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal begun
        with lock:
            begun += 1
        time.sleep(0.001 * (number % 3))
        return number * number

    ahead = []
    for done, result in enumerate(side_by_side(work, range(40), 3)):
        assert result == done * done
        time.sleep(0.003)  # whoever asks is the slower one
        ahead.append(begun - done)
    assert max(ahead) <= 7
