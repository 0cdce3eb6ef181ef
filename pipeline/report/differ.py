"""Questions on which ways of looking differ, as cards: the picture, and what each said."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageOps

from pipeline.report.figures import table
from pipeline.report.html import Html, tag
from pipeline.report.pictures import CROP_PX, data_uri
from pipeline.report.scatter import Record, share

HALF = 0.5
"""An answer with this mean or a larger one is marked right."""
ANSWER = 60
"""Signs of an answer that are shown; the rest when pointed at."""


def cards(disagreements: Sequence[Record], pictures: Mapping[str, bytes]) -> list[Html]:
    if not disagreements:
        return [tag("p", "Nowhere.", class_="quiet")]
    note = (
        "The rarer a difference between two methods at one budget, or two budgets of one method, "
        "the earlier it stands."
    )
    return [tag("p", note, class_="quiet"), *(_card(found, pictures) for found in disagreements)]


def _card(found: Record, pictures: Mapping[str, bytes]) -> Html:
    told = [found["benchmark"], found["subject"], found["category"], found["item_id"]]
    return tag(
        "article",
        tag(
            "header",
            tag("h3", str(found["question"] or found["item_id"]), dir="auto"),
            tag("p", "Right is: ", tag("strong", str(found["target"]), dir="auto")),
            tag("p", " · ".join(str(part) for part in told if part), class_="quiet"),
        ),
        _thumbnail(pictures.get(str(found["item_id"])) or pictures.get(str(found["image_id"]))),
        _said(found["said"]),
        tag("p", f"{found['tells']}.", class_="quiet"),
    )


def _thumbnail(encoded: bytes | None) -> Html | None:
    """The picture made small; None where there is none, or none that opens."""
    if encoded is None:
        return None
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            opened.draft("RGB", (CROP_PX, CROP_PX))
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((CROP_PX, CROP_PX), Image.Resampling.LANCZOS)
    return tag("figure", tag("img", src=data_uri(image), alt="", loading="lazy"), class_="crop")


def _said(said: Sequence[Record]) -> Html:
    """What each method said, a line for each and a column for each budget."""
    methods = list(dict.fromkeys(str(one["method"]) for one in said))
    budgets = sorted({int(one["resolution"]) for one in said})
    at = {(one["method"], one["resolution"]): one for one in said}
    body = [
        [tag("strong", name), *(_answer(at.get((name, budget))) for budget in budgets)]
        for name in methods
    ]
    return table(["", *map(str, budgets)], body)


def _answer(one: Record | None) -> Html | str:
    if one is None:
        return "–"
    unscored, right = one["value"] is None, (one["value"] or 0) >= HALF
    mark = "badge unsure" if unscored else "badge right" if right else "badge"
    sign = "? " if unscored else "" if right else "✗ "
    words = str(one["answer"]) or "(nothing)"
    short = words if len(words) <= ANSWER else words[: ANSWER - 1] + "…"
    often = f" · {share(one['value'])} of {one['tries']}" if one["tries"] > 1 else ""
    return tag("span", sign + short + often, class_=mark, dir="auto", title=words[:1000])
