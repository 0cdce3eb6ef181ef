"""Boxes reach the keys that show them: by formula, by recorded processors, and by real networks.

A network proves it so: the pixels of a box are painted over, and the visual tokens that change are
the ones flagged. Its layers do not mix tokens here, so a change stays where it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.geometry import Size
from pipeline.grids import Rule, UnitBox
from pipeline.models.vision_grid import (
    Adapter,
    InstructBlip,
    Llava,
    LlavaNext,
    Qwen,
    Seen,
    adapter_for,
)

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens" / "c2f.json"
LAW = settings(deadline=None, max_examples=60)
IMAGE = 7
"""The token that stands for a visual token in these rows."""
PLAIN = Rule(square=False)

PAD, CROP = Llava(image_token=IMAGE), Llava(image_token=IMAGE, fit="crop")
NEXT = LlavaNext(image_token=IMAGE)
QWEN = Qwen(image_token=IMAGE, space="pixel")
BLIP = InstructBlip()

sizes = st.tuples(st.integers(20, 2000), st.integers(20, 2000))
units = st.floats(0, 1)

# Recorded from the processors: size, fit, box of the picture, its cells (rows, cols; None outside).
LLAVA: list[tuple[Size, Llava, UnitBox, list[int] | None]] = [
    ((640, 480), PAD, (0.103125, 0.38958333, 0.5328125, 0.66458333), [10, 14, 2, 12]),
    ((640, 480), CROP, (0.103125, 0.38958333, 0.5328125, 0.66458333), [9, 15, 0, 13]),
    ((301, 999), PAD, (0.14285714, 0.42842843, 0.61129568, 0.63763764), [10, 15, 9, 12]),
    ((301, 999), CROP, (0.14285714, 0.42842843, 0.61129568, 0.63763764), [6, 22, 3, 14]),
    ((97, 2001), PAD, (0.13402062, 0.23388306, 0.42268041, 0.44027986), [5, 10, 11, 11]),
    ((97, 2001), CROP, (0.13402062, 0.23388306, 0.42268041, 0.44027986), None),
]
# Size -> tokens, first row and column of tiles kept, rows and columns kept.
TILES: dict[Size, tuple[int, int, int, int, int]] = {
    (640, 480): (2340, 6, 0, 36, 48),
    (480, 640): (2352, 0, 6, 48, 36),
    (336, 336): (1176, 0, 12, 24, 24),
    (1000, 300): (2182, 1, 0, 22, 72),
    (301, 999): (2232, 0, 1, 72, 22),
    (427, 640): (2160, 0, 8, 48, 32),
    (500, 333): (1464, 0, 6, 24, 36),
    (97, 2001): (936, 0, 10, 72, 4),
}


def row(adapter: Adapter, *pictures: Seen) -> np.ndarray:
    """A row of tokens: padding, words, and each picture's tokens, two of them side by side."""
    count = sum(adapter.count(seen) for seen in pictures)
    return np.array([0, 0, 0, 1, 5, 9, *[IMAGE] * count, 3, 4])


def corners(mask: np.ndarray) -> list[int] | None:
    """First and last row, first and last column, of a mask that is one full rectangle."""
    if not mask.any():
        return None
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask.sum() == len(rows) * len(cols)
    return [int(n) for n in (rows[0], rows[-1], cols[0], cols[-1])]


def llava_cells(adapter: Llava, size: Size, box: UnitBox) -> list[int] | None:
    seen = Seen(size)
    flags = adapter.flags(row(adapter, seen), [seen], [box], rule=PLAIN)
    assert not flags[:6].any() and not flags[-2:].any()
    return corners(flags[6:-2].reshape(24, 24))


# Recorded geometry


@pytest.mark.parametrize("case", LLAVA, ids=str)
def test_a_box_of_the_picture_reaches_the_recorded_cells_of_llava(
    case: tuple[Size, Llava, UnitBox, list[int] | None],
) -> None:
    size, adapter, box, cells = case
    assert llava_cells(adapter, size, box) == cells


@pytest.mark.parametrize("size", TILES, ids=str)
def test_llava_next_keeps_the_recorded_tiles(size: Size) -> None:
    base, tiles = NEXT.panels(Seen(size))
    rows, cols = tiles.kept
    kept = (rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
    assert (NEXT.count(Seen(size)), *kept) == TILES[size]
    assert base.grid == (24, 24)


@pytest.mark.skipif(not GOLDENS.exists(), reason="the goldens beside the project are not here")
def test_every_recorded_geometry_is_reproduced() -> None:
    golden = json.loads(GOLDENS.read_text())["geometry"]
    for case in golden["llava"]:
        adapter = PAD if case["mode"] == "pad" else CROP
        size, box = tuple(case["image_wh"]), tuple(case["box_orig_norm"])
        told = case["affine"]
        affine = [told[name] for name in ("ax", "bx", "ay", "by")]
        assert adapter.affine(size) == pytest.approx(affine, abs=1e-12)
        assert adapter.to_model(box, size) == pytest.approx(case["box_model_norm"], abs=1e-12)
        assert llava_cells(adapter, size, box) == case["exact_cells_r0r1c0c1"], case
    for case in golden["llava_next"]:
        assert NEXT.count(Seen(tuple(case["image_wh"]))) == case["n_tokens"], case
    told = [case for case in golden["qwen2_5_vl"] if "error" not in case]
    assert len(told) >= 16
    for case in told:
        _check_qwen(case)


def _check_qwen(case: dict[str, Any]) -> None:
    seen = Seen(tuple(case["image_wh"]), tuple(case["image_grid_thw"]))
    height, width = case["resized_hw"]
    assert QWEN.spoken_size(seen) == (width, height) and QWEN.count(seen) == case["n_tokens"]
    x0, y0, x1, y1 = case["example"]["bbox_2d_abs_resized"]
    box = (x0 / width, y0 / height, x1 / width, y1 / height)
    flags = QWEN.flags(row(QWEN, seen), [seen], [box], rule=PLAIN)
    mask = flags[6:-2].reshape(case["merged_hw"])
    assert corners(mask) == case["example"]["exact_cells_r0r1c0c1"], case


# Laws


@LAW
@given(sizes, st.tuples(units, units, units, units))
def test_a_box_goes_to_the_model_and_back(size: Size, box: UnitBox) -> None:
    for adapter in (PAD, CROP, NEXT, BLIP):
        there = adapter.to_model(box, size)
        assert adapter.to_image(there, size) == pytest.approx(box, abs=1e-9)


@LAW
@given(sizes)
def test_flags_are_as_many_as_keys_and_the_whole_picture_is_every_key_that_shows_a_place(
    size: Size,
) -> None:
    everything = [(0.0, 0.0, 1.0, 1.0)]
    for adapter, seen in ((NEXT, Seen(size)), (BLIP, Seen(size)), (QWEN, Seen(size, (2, 4, 6)))):
        ids = row(adapter, seen)
        whole = adapter.flags(ids, [seen], None)
        assert len(whole) == (adapter.count(seen) if adapter is BLIP else len(ids))
        assert np.array_equal(whole, adapter.flags(ids, [seen], everything))
        assert not adapter.flags(ids, [seen], []).any()


def test_the_whole_of_a_padded_square_has_the_border_the_picture_has_not() -> None:
    seen = Seen((640, 320))
    ids = row(PAD, seen)
    assert PAD.flags(ids, [seen], None).sum() == 576
    assert PAD.flags(ids, [seen], [(0.0, 0.0, 1.0, 1.0)], rule=PLAIN).sum() == 12 * 24


def test_a_box_that_llava_says_is_of_the_padded_square_already() -> None:
    seen, box = Seen((640, 320)), (0.0, 0.25, 0.25, 0.5)
    ids = row(PAD, seen)
    said = PAD.flags(ids, [seen], [box], rule=PLAIN, frame="model")[6:-2].reshape(24, 24)
    drawn = PAD.flags(ids, [seen], [box], rule=PLAIN, frame="image")[6:-2].reshape(24, 24)
    assert corners(said) == [6, 11, 0, 5] and corners(drawn) == [9, 11, 0, 5]
    shown = PAD.flags(ids, [seen], [PAD.to_image(box, seen.size)], rule=PLAIN)
    assert np.array_equal(shown[6:-2].reshape(24, 24), said)


def test_line_ends_and_class_tokens_are_never_flagged() -> None:
    seen = Seen((640, 480))
    lines = NEXT.flags(row(NEXT, seen), [seen], None)[6:-2][576:].reshape(36, 49)
    assert lines[:, :48].all() and not lines[:, 48].any()
    assert not BLIP.flags([], [seen], None)[0] and BLIP.flags([], [seen], None).sum() == 256
    full = Llava(image_token=IMAGE, before=1)
    assert full.flags(row(full, seen), [seen], None)[6:8].tolist() == [False, True]


def test_the_pictures_of_a_row_are_told_apart_even_side_by_side() -> None:
    pictures = [Seen((640, 480), (1, 4, 6)), Seen((480, 640), (1, 6, 4)), Seen((9, 9), (3, 2, 4))]
    ids = row(QWEN, *pictures)
    starts = np.cumsum([6, 6, 6])
    corner = [(0.0, 0.0, 0.3, 0.3)]
    for number, start in enumerate(starts):
        flags = QWEN.flags(ids, pictures, corner, rule=PLAIN, picture=number)
        frames = pictures[number].grid[0]  # type: ignore[index]
        assert np.flatnonzero(flags).tolist() == [start + 2 * frame for frame in range(frames)]


def test_squares_have_equal_sides_in_pixels_of_the_picture() -> None:
    seen, box = Seen((1008, 336), (1, 24, 72)), (0.4, 0.4, 0.6, 0.6)
    mask = QWEN.flags(row(QWEN, seen), [seen], [box])[6:-2].reshape(12, 36)
    assert corners(mask) == [2, 9, 14, 21]  # 8 x 8 tokens of one size
    tile = NEXT.flags(row(NEXT, seen), [seen], [box])[6:-2][576:].reshape(24, 73)
    assert corners(tile) == [4, 19, 28, 43]


def test_the_published_rule_holds_for_every_family() -> None:
    seen, middle, rule = Seen((336, 336), (1, 24, 24)), [(0.2, 0.2, 0.8, 0.8)], Rule(compat=True)
    for adapter in (PAD, CROP, NEXT, QWEN, BLIP):  # a wide box in the middle snaps to all borders
        ids = row(adapter, seen)
        flags = adapter.flags(ids, [seen], middle, rule=rule)
        assert np.array_equal(flags[:582], adapter.flags(ids, [seen], None)[:582])


def test_a_row_that_does_not_hold_its_pictures_is_refused() -> None:
    seen = Seen((640, 480))
    with pytest.raises(ValueError, match="577"):
        PAD.flags(np.append(row(PAD, seen), IMAGE), [seen], None)
    with pytest.raises(ValueError, match="numbered 1"):
        PAD.flags(row(PAD, seen), [seen], None, picture=1)
    with pytest.raises(ValueError, match="one dimension"):
        PAD.flags(row(PAD, seen)[None], [seen], None)
    for grid in (None, (1, 3, 4), (0, 4, 4)):
        with pytest.raises(ValueError, match="image_grid_thw"):
            QWEN.count(Seen((640, 480), grid))


# Which adapter


def _config(kind: str, **settings: Any) -> SimpleNamespace:
    vision = {"image_size": 336, "patch_size": 14, "spatial_merge_size": 2}
    rest = {
        "image_token_index": 5,
        "image_token_id": 5,
        "vision_feature_select_strategy": "default",
    }
    return SimpleNamespace(
        model_type=kind, vision_config=SimpleNamespace(**vision), **rest | settings
    )


def _images(**settings: Any) -> SimpleNamespace:
    square = {"height": 336, "width": 336}
    told = {"do_pad": False, "do_center_crop": True, "size": {"shortest_edge": 336}}
    return SimpleNamespace(**{**told, "crop_size": square, **settings})


def test_the_adapter_follows_the_configuration() -> None:
    canvases = [[336, 672], [672, 336]]
    assert adapter_for(_config("qwen2_5_vl")) == Qwen(image_token=5, space="pixel")
    assert adapter_for(_config("qwen3_vl")).space == "permille"
    made = adapter_for(_config("llava_next", image_grid_pinpoints=canvases))
    assert made == LlavaNext(image_token=5, canvases=((336, 672), (672, 336)))
    assert adapter_for(_config("instructblip")) == InstructBlip(side=24)
    with pytest.raises(ConfigError, match="'llama' has no map"):
        adapter_for(SimpleNamespace(model_type="llama"))


def test_llavas_processor_says_how_pictures_become_squares() -> None:
    config = _config("llava")
    assert adapter_for(config, _images(do_pad=True)) == Llava(image_token=5)
    assert adapter_for(config, _images()) == Llava(image_token=5, fit="crop")
    wider = adapter_for(
        config, SimpleNamespace(image_processor=_images(size={"shortest_edge": 400}))
    )
    assert wider == Llava(image_token=5, fit="crop", shortest_px=400)
    squeezed = adapter_for(config, _images(do_center_crop=False))
    assert squeezed == Llava(image_token=5, fit="squeeze")
    full = adapter_for(_config("llava", vision_feature_select_strategy="full"), _images())
    assert full.count(Seen((9, 9))) == 577
    with pytest.raises(ConfigError, match="padded"):
        adapter_for(config)
    with pytest.raises(ConfigError, match="336 px"):
        adapter_for(config, _images(size={"shortest_edge": 224}))


# Real processors and real networks

Look = Callable[[Image.Image], tuple[np.ndarray, Seen]]
"""A picture's visual tokens as a network has them, float (keys, values)."""


def _proved(adapter: Adapter, look: Look, size: Size, box: UnitBox, slack: float) -> None:
    """Painting a box changes the keys flagged for it: all that it covers without `slack`, a
    fraction of the model's view for what resampling blurs, and none beyond it with as much."""
    width, height = size
    grey = Image.new("RGB", size, (120, 120, 120))
    painted = grey.copy()
    x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, (width, height) * 2, strict=True))
    painted.paste((250, 10, 60), (x0, y0, x1, y1))
    before, seen = look(grey)
    after, _ = look(painted)
    changed = np.abs(after - before).max(1) > 1e-4
    assert len(changed) == adapter.count(seen)
    real = (x0 / width, y0 / height, x1 / width, y1 / height)
    ids = row(adapter, seen) if adapter.image_token is not None else np.array([0])

    def flags(by: float) -> np.ndarray:
        a, b, c, d = adapter.to_model(real, size)
        grown = [(a - by, b - by, c + by, d + by)]
        found = adapter.flags(ids, [seen], grown, rule=PLAIN, frame="model")
        return found if adapter.image_token is None else found[ids == IMAGE]

    inner, outer = flags(-slack), flags(slack)
    assert inner.any() and not (inner & ~changed).any() and not (changed & ~outer).any()
    assert outer.sum() < len(outer) / 2


@pytest.mark.torch
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("size", [(900, 600), (501, 777)], ids=str)
def test_the_tokens_of_llava_that_change_are_the_flagged_ones(size: Size, pad: bool) -> None:
    import torch
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    images = LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size=336, do_pad=pad)
    model = _clip_model("llava")
    adapter = adapter_for(model.config, images)

    def look(picture: Image.Image) -> tuple[np.ndarray, Seen]:
        with torch.no_grad():
            found = model.get_image_features(**images(picture, return_tensors="pt"))
        return _tokens(found), Seen(picture.size)

    _proved(adapter, look, size, (0.42, 0.3, 0.61, 0.48), slack=4 / 336)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(1400, 900), (700, 1200), (2000, 500)], ids=str)
def test_the_tokens_of_llava_next_that_change_are_the_flagged_ones(size: Size) -> None:
    import torch
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    images = LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=336)
    model = _clip_model("llava_next")
    adapter = adapter_for(model.config)

    def look(picture: Image.Image) -> tuple[np.ndarray, Seen]:
        with torch.no_grad():
            found = model.get_image_features(**images(picture, return_tensors="pt"))
        return _tokens(found), Seen(picture.size)

    _proved(adapter, look, size, (0.42, 0.3, 0.61, 0.48), slack=6 / 336)


@pytest.mark.torch
def test_the_tokens_of_qwen_that_change_are_the_flagged_ones() -> None:
    import torch
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from tests.models.tiny_qwen import build_model, build_tokenizer

    model = build_model(build_tokenizer())
    _unmixed(model.model.visual, "attn.proj")
    images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=448 * 448)
    adapter = adapter_for(model.config)

    def look(picture: Image.Image) -> tuple[np.ndarray, Seen]:
        inputs = images(picture, return_tensors="pt")
        with torch.no_grad():
            found = model.get_image_features(**inputs)
        return _tokens(found), Seen(picture.size, tuple(inputs["image_grid_thw"][0].tolist()))

    adapter = Qwen(image_token=IMAGE, space=adapter.space)
    _proved(adapter, look, (700, 500), (0.42, 0.3, 0.61, 0.48), slack=4 / 448)


@pytest.mark.torch
def test_the_keys_of_instructblip_that_change_are_the_flagged_ones() -> None:
    import torch
    from transformers import InstructBlipVisionConfig, InstructBlipVisionModel
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    config = InstructBlipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = InstructBlipVisionModel(config).eval()
    _unmixed(model, "self_attn.projection")
    images = BlipImageProcessorPil(size={"height": 224, "width": 224})
    adapter = adapter_for(SimpleNamespace(model_type="instructblip", vision_config=config))

    def look(picture: Image.Image) -> tuple[np.ndarray, Seen]:
        with torch.no_grad():
            found = model(**images(picture, return_tensors="pt")).last_hidden_state[0]
        return found.numpy(), Seen(picture.size)

    _proved(adapter, look, (900, 500), (0.42, 0.3, 0.61, 0.48), slack=4 / 224)


def _clip_model(kind: str) -> Any:
    """A tiny LLaVA over a tower of the real grid; the only layer is not used (`-2`)."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = {"model_type": "clip_vision_model", "num_attention_heads": 2, **small}
    text = {"model_type": "llama", "num_attention_heads": 2, "vocab_size": 16, **small}
    config = AutoConfig.for_model(
        kind,
        vision_config={**vision, "image_size": 336, "patch_size": 14},
        text_config=text,
        image_token_index=IMAGE,
    )
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).eval()


def _unmixed(model: Any, projection: str) -> None:
    """Each layer's attention adds nothing, so that tokens keep to themselves."""
    import torch

    found = [m for name, m in model.named_modules() if name.endswith(projection)]
    assert found
    for module in found:
        torch.nn.init.zeros_(module.weight)


def _tokens(found: Any) -> np.ndarray:
    """The visual tokens of one picture, float (n, values)."""
    tokens = getattr(found, "pooler_output", found)
    array: np.ndarray = tokens[0].numpy()
    return array
