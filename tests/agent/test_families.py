"""A family says what its models see and speak; what is sent is never more than that."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES, Family, family_of
from pipeline.errors import ConfigError, InvalidBox
from pipeline.geometry import Box, Size

EVERY = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def sizes(key: str, most: int) -> list[Size]:
    rng = random.Random(key)
    return [(rng.randint(28, most), rng.randint(28, most)) for _ in range(60)]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen2-vl"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl"),
        ("/models/Qwen2_5-VL-3B-AWQ", "qwen2.5-vl"),
        ("qwen2.5vl:7b", "qwen2.5-vl"),
        ("Salesforce/instructblip-vicuna-7b", "instructblip"),
        ("omlab/VLM-R1-Qwen2.5VL-3B", "qwen2.5-vl"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3-vl"),
        ("OpenGVLab/InternVL3-8B", "internvl"),
        ("OpenGVLab/InternVL3_5-8B-HF", "internvl"),
        ("llava-hf/llava-1.5-7b-hf", "llava"),
        ("liuhaotian/llava-v1.5-13b", "llava"),
    ],
)
def test_a_usual_name_tells_the_family(name: str, family: str) -> None:
    assert family_of(name, None).name == family


@pytest.mark.parametrize(
    "name", ["gpt-4o", "Qwen/Qwen2.5-7B", "llava-v1.6-mistral-7b", "qwen2-vl-to-internvl", ""]
)
def test_a_name_that_does_not_tell_asks_to_be_told(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        family_of(name, None)
    assert "cofpipe doctor --endpoint URL" in str(raised.value)
    assert family_of(name, "internvl").name == "internvl"


def test_what_is_told_goes_before_the_name() -> None:
    assert family_of("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen3-VL").name == "qwen3-vl"


def test_a_mistyped_family_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'qwen2\.5-vl'\?"):
        family_of("Qwen/Qwen2.5-VL-7B-Instruct", "qwen25-vl")


@pytest.mark.parametrize(
    ("family", "size", "seen"),
    [
        ("qwen2.5-vl", (1920, 1080), (1932, 1092)),  # hiyouga/LlamaFactory#7690
        ("qwen2.5-vl", (30, 20), (84, 56)),
        ("instructblip", (640, 480), (224, 224)),
        ("qwen3-vl", (640, 480), (640, 480)),
        ("qwen3-vl", (100, 100), (256, 256)),
        ("internvl", (4000, 4000), (1344, 1344)),
        ("internvl", (448, 448), (448, 448)),
        ("internvl", (4000, 1000), (1792, 448)),
        ("llava", (1000, 500), (336, 168)),
        ("llava-next", (1000, 500), (672, 336)),
    ],
)
def test_pictures_are_seen_at_the_size_that_the_processor_makes(
    family: str, size: Size, seen: Size
) -> None:
    assert FAMILIES[family].seen(size) == seen


@EVERY
def test_a_box_comes_back_from_the_familys_numbers(family: Family) -> None:
    rng = random.Random(family.name)
    for size in sizes(family.name, 3000):
        x0, y0 = rng.randint(0, size[0] - 12), rng.randint(0, size[1] - 12)
        box = Box(x0, y0, rng.randint(x0 + 10, size[0]), rng.randint(y0 + 10, size[1]))
        for order in (family, replace(family, order="yxyx")):
            back = order.read(order.written(box, size), size)
            grain = max(*size, *family.seen(size)) / 1000 + 1
            assert (
                max(abs(a - b) for a, b in zip(back.as_list(), box.as_list(), strict=True)) < grain
            )


def test_top_first_is_not_left_first() -> None:
    family, box = FAMILIES["qwen2.5-vl"], Box(28, 56, 84, 140)
    assert family.written(box, (280, 280)) == (28, 56, 84, 140)
    assert replace(family, order="yxyx").written(box, (280, 280)) == (56, 28, 140, 84)


@EVERY
def test_shrinking_to_what_is_seen_changes_no_box(family: Family) -> None:
    for width, height in sizes(family.name, 6000):
        size = width, height
        seen = family.seen(size)
        sent = min(width, seen[0]), min(height, seen[1])
        assert family.frame(sent).view == family.frame(size).view
        numbers = Box(width / 4, height / 4, width / 2, height / 2).to_frame(family.frame(size))
        again = Box(sent[0] / 4, sent[1] / 4, sent[0] / 2, sent[1] / 2).to_frame(family.frame(sent))
        grain = 2 / min(seen) * (numbers[2] - numbers[0] + numbers[3] - numbers[1])
        assert np.allclose(numbers, again, atol=grain)


@EVERY
def test_a_picture_is_never_sent_larger_than_seen_nor_than_it_is(family: Family) -> None:
    shrunk = 0
    for size in [*sizes(family.name, 700)[:4], (1292, 700), (2000, 1300), (30, 40)]:
        picture = encoded(np.zeros((size[1], size[0], 3), np.uint8), family)
        seen = family.seen(size)
        assert all(a <= min(b, c) for a, b, c in zip(picture.size, size, seen, strict=True))
        shrunk += picture.size != size
    assert shrunk


def test_the_bytes_are_a_picture_and_always_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    first, again = (encoded(pixels, FAMILIES["llava"]) for _ in range(2))
    assert first == again
    assert first.sha256 != encoded(pixels, FAMILIES["llava"], quality=50).sha256
    with Image.open(io.BytesIO(first.jpeg)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", first.size)


@pytest.mark.parametrize("size", [(28, 6000), (5684, 39)])
def test_what_a_processor_would_refuse_is_no_picture(size: Size) -> None:
    with pytest.raises(InvalidBox, match=r"cannot see"):
        FAMILIES["qwen2.5-vl"].seen(size)


def test_families_are_known_without_arrays_networks_or_weights() -> None:
    heavy = "{'numpy', 'torch', 'openai', 'http.client'}"
    code = f"import sys, pipeline.agent.families; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
