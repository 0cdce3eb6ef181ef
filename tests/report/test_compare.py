"""The page of a comparison: safe with what models said, whole in itself, and readable."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.report.compare import write_chart, write_compare
from pipeline.report.scatter import BASE, COLOURS, LEFT, RIGHT, TOP
from tests.report.test_page import HOSTILE, Reader

BUDGETS = (224, 448, 1024, 3840)


def _right(value: float, reach: float = 0.08, items: int = 60) -> dict[str, Any]:
    low, high = max(value - reach, 0.0), min(value + reach, 1.0)
    return {"value": value, "low": low, "high": high, "items": items, "images": items // 2}


def _cell(
    method: str, resolution: int, value: float | None, tokens: float | None
) -> dict[str, Any]:
    right = None if value is None else _right(value)
    return {
        "subject": "tiny",
        "benchmark": "needles",
        "method": method,
        "resolution": resolution,
        "items": 60,
        "rollouts": 1,
        "unscored": 2,
        "accuracy": right,
        "categories": {} if right is None else {"large": right, "small": right},
        "best_of": None,
        "looks": 1.25,
        "visual_tokens": tokens,
        "tokens_in": None,
        "tokens_out": 12.0,
        "seconds": 0.5,
        "invalid": None,
        "unfinished": 0.0,
        "outcomes": {"box": 50, "fallback_all": 10} if method == "coarse-to-fine" else {},
        "protocols": ("exact",),
    }


def _cells(methods: tuple[str, ...] = ("direct", "zoom", "coarse-to-fine")) -> list[dict[str, Any]]:
    return [
        _cell(m, r, min(0.1 + 0.2 * n + 0.07 * place, 1.0), (50.0 + 20 * place) * 3.5**n)
        for place, m in enumerate(methods)
        for n, r in enumerate(BUDGETS)
    ]


def _saving(**more: Any) -> dict[str, Any]:
    return {
        "subject": "tiny",
        "benchmark": "needles",
        "method": "zoom",
        "against": ("tiny", "needles", "direct", 3840),
        "margin": 0.0,
        "items": 58,
        "images": 29,
        "aim": 0.7,
        "tokens": 900.0,
        "tokens_against": 2143.0,
        "value": 0.58,
        "low": 0.41,
        "high": None,
        "at_least": False,
        "reached": 1.0,
        "reason": "",
        "verdict": "not decided",
    } | more


def _disagreement(word: str, item: str = "a") -> dict[str, Any]:
    said = [
        {"method": m, "resolution": r, "value": v, "answer": f"{word}{m}{r}", "tries": 1}
        for m, r, v in (("direct", 224, 0.0), ("zoom", 224, 1.0), ("zoom", 448, None))
    ]
    return {
        "subject": "tiny",
        "benchmark": "needles",
        "item_id": item,
        "image_id": f"picture {item}",
        "category": word,
        "question": f"{word}?",
        "target": word,
        "bits": 3.0,
        "tells": "zoom at 224 is right, direct at 224 is not",
        "said": said,
    }


def _pair() -> dict[str, Any]:
    one, other = (("tiny", "needles", m, 224) for m in ("zoom", "direct"))
    gap = {"value": 0.1, "low": -0.02, "high": 0.2, "items": 58, "images": 29}
    return {"one": one, "other": other, "difference": gap, "better": 9, "worse": 3, "p": 0.146}


def _picture() -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    Image.fromarray(np.zeros((900, 1200, 3), np.uint8)).save(out, "JPEG", exif=exif)
    return out.getvalue() + b"<script>SECRET</script>"


def _page(tmp_path: Path, word: str = "K7Q", **more: Any) -> str:
    found = [_disagreement(word, "a"), _disagreement(word, "b"), _disagreement(word, "c")]
    pictures = {"picture a": _picture(), "picture b": b"no picture"}
    out = write_compare(
        _cells(), [_saving()], found, tmp_path / "page.html", pairs=[_pair()], pictures=pictures
    )
    return out.read_text("utf-8")


def test_what_models_said_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    text = _page(tmp_path, HOSTILE)
    page = Reader(text)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "form", "base", "a"}
    assert not [key for _, marks in page.tags for key in marks if key.startswith("on")]
    assert len(page.all("img")) == 1, "the picture that opens, and no other"
    assert any("<script>alert(1)</script>" in said for said in page.text)


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    text = _page(tmp_path)
    page = Reader(text)
    addresses = [a[k] for _, a in page.tags for k in ("src", "href", "action", "style") if k in a]
    assert addresses and all(str(a).startswith("data:image/jpeg;base64,") for a in addresses)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert b"SECRET" not in base64.b64decode(str(addresses[0]).partition(",")[2])
    assert any("default-src 'none'" in str(meta.get("content")) for meta in page.all("meta"))


def test_the_page_says_what_was_counted(tmp_path: Path) -> None:
    words = " ".join(Reader(_page(tmp_path)).text)
    numbers = ("10.0 %", "2.0 – 18.0", "58.0 %", "41 – open", "+10.0 points", "0.146", "1.25")
    said = ("not decided", "fallback_all", "✗ K7Qdirect224", "? K7Qzoom448", "large")
    for told in (*numbers, *said):
        assert told in words, told


def test_a_page_of_nothing_is_a_page(tmp_path: Path) -> None:
    text = write_compare([], [], [], tmp_path / "empty.html").read_text("utf-8")
    assert "Nothing was scored" in text
    cells = [_cell("zoom", 224, None, None)]
    text = write_compare(cells, [], [], tmp_path / "none.html").read_text("utf-8")
    assert "Not drawn, for want of scores or of token counts: zoom at 224." in text


def test_the_order_of_records_is_kept_and_the_page_is_the_same_again(tmp_path: Path) -> None:
    assert _page(tmp_path) == _page(tmp_path)
    words = _page(tmp_path)
    assert words.index("direct") < words.index("zoom") < words.index("coarse-to-fine")


SVG = "{http://www.w3.org/2000/svg}"


def _chart(tmp_path: Path, cells: list[dict[str, Any]]) -> ET.Element:
    return ET.parse(write_chart(cells, tmp_path / "chart.svg")).getroot()


def test_the_chart_is_one_svg_that_stands_by_itself(tmp_path: Path) -> None:
    chart = _chart(tmp_path, [*_cells(), *({**c, "benchmark": "vstar"} for c in _cells())])
    assert len(chart.findall(f"{SVG}g")) == 2
    high = float(chart.get("height") or 0)
    assert chart.get("viewBox") == f"0 0 {chart.get('width')} {chart.get('height')}" and high > 900
    text = (tmp_path / "chart.svg").read_text("utf-8")
    assert "href" not in text and "url(" not in text and "style" not in text
    assert _chart(tmp_path, [_cell("zoom", 224, None, None)]).findall(f".//{SVG}circle")


def _dots(chart: ET.Element) -> list[tuple[float, float, str]]:
    """x, y and words of the cells' dots."""
    found = [dot for dot in chart.iter(f"{SVG}circle") if dot.find(f"{SVG}title") is not None]
    return [(float(d.get("cx", 0)), float(d.get("cy", 0)), d[0].text or "") for d in found]


def test_dots_stand_where_their_numbers_say(tmp_path: Path) -> None:
    dots = {words.split(":")[0]: (x, y) for x, y, words in _dots(_chart(tmp_path, _cells()))}
    assert len(dots) == 12
    xs = [dots[f"direct at {r}"][0] for r in BUDGETS]
    steps = np.diff(xs)
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2), "a ratio of tokens is a distance"
    ys = [dots[f"direct at {r}"][1] for r in BUDGETS]
    assert np.diff(ys) == pytest.approx([ys[1] - ys[0]] * 3, abs=0.2) and ys[0] > ys[-1]
    for x, y in dots.values():
        assert LEFT < x < RIGHT and TOP <= y <= BASE


def test_dots_that_would_hide_each_other_stand_apart(tmp_path: Path) -> None:
    cells = [_cell(m, 448, 0.5, 300.0) for m in COLOURS] + [_cell("direct", 1024, 0.6, 900.0)]
    places = [x for x, _, words in _dots(_chart(tmp_path, cells)) if " 448:" in words]
    assert min(np.diff(sorted(places))) >= 4.9


@pytest.mark.parametrize("methods", [tuple(COLOURS)[:2], tuple(COLOURS)])
def test_labels_do_not_lie_on_each_other_or_on_dots(
    tmp_path: Path, methods: tuple[str, ...]
) -> None:
    chart = _chart(tmp_path, _cells(methods))
    boxes = [_box(words) for words in chart.iter(f"{SVG}text") if float(words.get("x", 0)) > LEFT]
    for n, one in enumerate(boxes):
        for other in boxes[:n]:
            assert not _meet(one, other)
    budgets = [
        _box(words)
        for words in chart.iter(f"{SVG}text")
        if re.fullmatch(r"#\w{6}", words.get("fill", ""))
    ]
    assert len(budgets) >= 8, "some budgets can be read off the chart"
    for x, y, _ in _dots(chart):
        assert not any(_meet(box, (x - 4, y - 4, x + 4, y + 4)) for box in budgets)


def _box(text: ET.Element) -> tuple[float, float, float, float]:
    """Where a text lies, about: 6.5 units a sign."""
    x, y, wide = float(text.get("x", 0)), float(text.get("y", 0)), 6.5 * len(text.text or "")
    x -= {"end": wide, "middle": wide / 2}.get(text.get("text-anchor", ""), 0)
    return x, y - 9, x + wide, y


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
