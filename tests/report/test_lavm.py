"""The page of LAVM predictions: every picture inside, in the order shown, safe with any name."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.report.lavm import render, write_lavm
from tests.report.test_page import HOSTILE, Reader

SIZE = (320, 240)
LEVELS = ((255, 128, 0), (0, 255, 255))
FACTS = {"run_id": f"eval-lavm-seg-1 {HOSTILE}", "subject": HOSTILE, "task": "seg", "levels": 2}


def _plain(color: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", SIZE, color)


def _predicted(method: str, levels: int, iou: float | None) -> dict[str, Any]:
    frames = [_plain(color) for color in LEVELS[-levels:]]
    shown = {"image_id": HOSTILE, "image": _plain((9, 9, 9)), "frames": frames}
    exemplar = shown | {"jaccard": 0.25, "richness": 77}
    picture = Image.new("RGB", (256, 256), (200, 0, 0))
    return {
        "method": method,
        "picture": picture,
        "scores": {"iou": iou},
        "exemplars": [exemplar],
    }


def _card(truth: bool) -> dict[str, Any]:
    predicted = [_predicted("chain", 2, 0.5), _predicted("no-chain", 1, None)]
    shown = _plain((0, 200, 0)) if truth else None
    return {"item_id": HOSTILE, "image": _plain((1, 2, 3)), "truth": shown, "predicted": predicted}


def _estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "items": 12, "images": 12}


RECORDS: list[dict[str, Any]] = [
    {"method": "chain", "scorer": "iou", "queries": 14, "unscored": 2,
     "reasons": {"no_truth": 2}, "mean": _estimate(0.5)},
    {"method": "random", "scorer": "iou", "queries": 14, "unscored": 14,
     "reasons": {"no_truth": 14}, "mean": None},
    {"one": "chain", "other": "random", "scorer": "iou", "queries": 12,
     "difference": _estimate(0.125), "better": 8, "worse": 4, "p": 0.388},
    {"one": "chain", "other": "nearest", "scorer": "iou", "queries": 0, "difference": None,
     "better": 0, "worse": 0, "p": 1.0},
]  # fmt: skip


def _captions(page: str) -> list[str]:
    return [re.sub(r"<.*?>", "", text) for text in re.findall(r"<figcaption.*?</figcaption>", page)]


def test_each_method_shows_exemplar_levels_query_prediction_and_truth_in_this_order() -> None:
    page = render(FACTS, RECORDS, [_card(truth=True)])
    captions = _captions(page)
    assert [text.split(" ")[0] for text in captions] == [
        *("exemplar", "level", "level", "query", "prediction", "truth"),
        *("exemplar", "level", "query", "prediction", "truth"),
    ]
    assert "Jaccard 0.250, richness 77" in captions[0]
    assert captions[1:3] == ["level 1 of 2", "level 2 of 2"]
    assert captions[4] == "prediction · iou 0.500" and captions[9] == "prediction · iou –"


def test_a_query_without_truth_shows_none() -> None:
    captions = _captions(render(FACTS, RECORDS, [_card(truth=False)]))
    assert len(captions) == 9 and "truth" not in captions


def test_frames_keep_their_flat_colours_and_no_tile_is_larger_than_a_prediction() -> None:
    page = render(FACTS, RECORDS, [_card(truth=True)])
    data = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page)
    pictures = [(kind, Image.open(io.BytesIO(base64.b64decode(text)))) for kind, text in data]
    assert len(pictures) == 11 and max(max(image.size) for _, image in pictures) == 256
    flat = [image.convert("RGB").getcolors() for kind, image in pictures if kind == "png"]
    assert [colors[0][1] for colors in flat if colors and len(colors) == 1] == [
        *LEVELS, (0, 200, 0), LEVELS[1], (0, 200, 0),
    ]  # fmt: skip


def test_the_tables_tell_what_is_known_and_what_is_not() -> None:
    page = Reader(render(FACTS, RECORDS, []))
    text = " ".join(page.text)
    for told in ("0.500", "0.400 – 0.600", "2 no_truth", "+0.125", "+0.025 to +0.225", "0.388"):
        assert told in text
    assert "Nothing was predicted." in text and "task seg · levels 2" in text


def test_hostile_names_stay_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    out = write_lavm(FACTS, RECORDS, [_card(truth=True)], tmp_path / "deep" / "page.html")
    page = Reader(out.read_text("utf-8"))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "form", "base", "a"}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    sources = [a[k] for _, a in page.tags for k in ("src", "href", "style", "action") if k in a]
    assert sources and all(str(source).startswith("data:image/") for source in sources)


@pytest.mark.parametrize("cards", [[], [_card(truth=True)]])
def test_the_same_records_give_the_same_page(cards: list[dict[str, Any]]) -> None:
    assert render(FACTS, RECORDS, cards) == render(FACTS, RECORDS, cards)
