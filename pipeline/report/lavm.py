"""The page of an evaluation of LAVMs: what was shown, what was predicted, and what is the truth.

Made from the records that `cofpipe eval lavm --json` prints and from pictures that are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.report.charts import number
from pipeline.report.figures import table
from pipeline.report.html import Html, tag
from pipeline.report.page import document, put
from pipeline.report.pictures import data_uri, flat_uri
from pipeline.report.prompts import shrunk

TILE_PX = 256
"""Longest side of a picture in the page: that of a prediction."""

Record = Mapping[str, Any]


def write_lavm(
    facts: Mapping[str, Any], records: Sequence[Record], cards: Sequence[Record], out: Path
) -> Path:
    """Write the page; returns where it is."""
    return put(render(facts, records, cards), out)


def render(facts: Mapping[str, Any], records: Sequence[Record], cards: Sequence[Record]) -> str:
    """The page as text; the same records give the same page.

    `facts` name the run: `run_id`, `subject`, and whatever else is to be told of it. A card is a
    query: `item_id`, `image`, `truth` or None, and `predicted`, for each method `method`,
    `picture`, `scores` by name, and `exemplars`: `image_id`, `image`, `frames`, `jaccard`,
    `richness`. Pictures are RGB, not encoded.
    """
    told = [f"{name} {value}" for name, value in facts.items() if name not in ("run_id", "subject")]
    head = tag(
        "header",
        tag("p", "cofpipe eval lavm", class_="quiet"),
        tag("h1", f"{facts['subject']} · {facts['run_id']}"),
        tag("p", " · ".join(told), class_="quiet"),
        class_="top",
    )
    shown = [_card(card) for card in cards] or [tag("p", "Nothing was predicted.", class_="quiet")]
    body = tag(
        "main",
        head,
        _section("scores", "By method", _lines(records), tag("p", _SCORES, class_="quiet")),
        _section("gaps", "What each part is worth", _gaps(records)),
        _section("predictions", "Predictions", *shown),
    )
    return document(f"{facts['run_id']} · predictions", body)


_SCORES = (
    "Means over queries, with 95 % intervals for which pictures are drawn anew. What is not "
    "defined (no truth, nothing marked) is unscored, which is not zero. exemplar_iou compares the "
    "exemplars’ own final frames with the truth: what choosing is worth without any model."
)


def _section(name: str, title: str, *children: Html) -> Html:
    return tag("section", tag("h2", title), *children, id=name)


def _lines(records: Sequence[Record]) -> Html:
    body = []
    for line in [record for record in records if "mean" in record]:
        mean = line["mean"]
        body.append(
            [
                tag("strong", str(line["method"])),
                str(line["scorer"]),
                _three(mean and mean["value"]),
                "–" if mean is None else f"{_three(mean['low'])} – {_three(mean['high'])}",
                number(mean["items"] if mean else 0),
                ", ".join(f"{count} {why}" for why, count in line["reasons"].items()) or "–",
            ]
        )
    return table(["Method", "Scorer", "Mean", "95 %", "of", "unscored"], body)


def _gaps(records: Sequence[Record]) -> Html:
    body = []
    for gap in [record for record in records if "difference" in record]:
        found = gap["difference"]
        ends = "–" if found is None else f"{found['low']:+.3f} to {found['high']:+.3f}"
        body.append(
            [
                tag("strong", f"{gap['one']} − {gap['other']}"),
                str(gap["scorer"]),
                "–" if found is None else f"{found['value']:+.3f}",
                ends,
                number(gap["queries"]),
                number(gap["better"]),
                number(gap["worse"]),
                f"{gap['p']:.3g}",
            ]
        )
    head = ["Methods", "Scorer", "Difference", "95 %", "Queries", "Better on", "Worse on", "p"]
    return table(head, body)


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _card(card: Record) -> Html:
    """One query: for each method what was shown, what came back, and the truth beside it."""
    origin = tag("p", str(card["item_id"]), class_="quiet origin", dir="auto")
    rows = [_row(card, predicted) for predicted in card["predicted"]]
    return tag("article", tag("header", origin), *rows)


def _row(card: Record, predicted: Record) -> Html:
    tiles = [tile for one in predicted["exemplars"] for tile in _exemplar(one)]
    tiles.append(_tile(card["image"], "query"))
    scores = ", ".join(f"{name} {_three(value)}" for name, value in predicted["scores"].items())
    tiles.append(_tile(predicted["picture"], " · ".join(filter(None, ["prediction", scores]))))
    if card["truth"] is not None:
        tiles.append(_tile(card["truth"], "truth", flat=True))
    return tag("div", tag("h3", str(predicted["method"])), tag("div", *tiles, class_="tiles"))


def _exemplar(one: Record) -> list[Html]:
    """An exemplar and the levels of it that were shown."""
    like = f"Jaccard {one['jaccard']:.3f}, richness {one['richness']}"
    frames, count = one["frames"], len(one["frames"])
    return [
        _tile(one["image"], f"exemplar {one['image_id']}: {like}"),
        *(
            _tile(frame, f"level {place} of {count}", flat=True)
            for place, frame in enumerate(frames, start=1)
        ),
    ]


def _tile(image: Image.Image, caption: str, *, flat: bool = False) -> Html:
    small = shrunk(image, TILE_PX, flat=flat)
    uri = flat_uri(small) if flat else data_uri(small)
    shown = tag("img", src=uri, alt=caption, loading="lazy")
    return tag("figure", shown, tag("figcaption", caption, dir="auto"), class_="crop")
