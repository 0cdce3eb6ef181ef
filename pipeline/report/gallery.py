"""Trajectories drawn over their pictures, the budgets of one question one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from PIL import Image

from pipeline.geometry import Box, Size
from pipeline.report.charts import duration, number
from pipeline.report.html import Html, join, tag
from pipeline.report.pictures import crop_at, data_uri, seen_at
from pipeline.report.rows import Look, Path, Question, Refusal

REFUSED_PX = 360
"""Width of a rejected row's picture in the page."""


def question_card(question: Question, image: Image.Image | None, place: int) -> Html:
    """One question: what was asked, then its path at each budget, the longest one open."""
    sprite = Sprite(f"q{place}", image)
    opened = max(question.paths, key=lambda path: path.num_zooms)
    paths = [_path(question, path, sprite, path is opened) for path in question.paths]
    heading = tag(
        "header",
        tag("h3", question.question, dir="auto"),
        _options(question.options),
        tag("p", *_origin(question), class_="quiet origin"),
        tag("ol", *(_rung(path) for path in question.paths), class_="ladder"),
    )
    return tag("article", heading, sprite.definitions(), *paths, id=f"q{place}")


def refusal_card(refusal: Refusal, image: Image.Image | None) -> Html:
    """One rejected row: its picture where there is one, and the reason."""
    budget = f" at budget {refusal.resolution}" if refusal.resolution else ""
    text = tag(
        "div",
        tag("p", tag("code", refusal.reason), f" · {refusal.stage}{budget}"),
        tag("p", refusal.detail, class_="detail", dir="auto") if refusal.detail else None,
        tag("p", refusal.sample_id, class_="quiet origin", dir="auto"),
    )
    return tag("article", _thumbnail(image, refusal.boxes), text, class_="refusal")


class Sprite:
    """The pictures of one question: each size is held once and drawn wherever it is needed."""

    def __init__(self, name: str, image: Image.Image | None) -> None:
        self.name = name
        self.image = image
        self._held: dict[Size, str] = {}

    def use(self, view: Size, size: Size) -> Html | None:
        """The picture as that view showed it, stretched over the source's coordinates."""
        if self.image is None:
            return None
        shown = seen_at(self.image, view)
        if shown.size not in self._held:
            self._held[shown.size] = data_uri(shown)
        return tag("use", href=f"#{self._id(shown.size)}", width=size[0], height=size[1])

    def definitions(self) -> Html:
        """Every picture that `use` has named so far."""
        symbols = [
            tag(
                "symbol",
                tag("image", href=uri, width=size[0], height=size[1]),
                id=self._id(size),
                view_box=f"0 0 {size[0]} {size[1]}",
                preserve_aspect="none",
            )
            for size, uri in self._held.items()
        ]
        return tag("svg", *symbols, class_="sprite", width=0, height=0, aria_hidden="true")

    def _id(self, size: Size) -> str:
        return f"{self.name}-{size[0]}x{size[1]}"


def _thumbnail(image: Image.Image | None, boxes: Sequence[Box]) -> Html | None:
    """A small picture with the boxes that were zoomed."""
    if image is None:
        return None
    width, height = image.size
    size = (REFUSED_PX, max(1, round(REFUSED_PX * height / width)))
    shown = tag("image", href=data_uri(seen_at(image, size)), width=width, height=height)
    marks = [_rect(box, "zoomed") for box in boxes]
    drawing = tag("svg", shown, *marks, view_box=f"0 0 {width} {height}", aria_hidden="true")
    return tag("figure", drawing, class_="picture")


def _options(options: Sequence[str]) -> Html | None:
    if not options:
        return None
    return tag("ul", *(tag("li", option, dir="auto") for option in options), class_="options")


def _origin(question: Question) -> list[Html | str]:
    parts = [question.sample_id, question.task, question.source, question.license]
    return [" · ".join(part for part in parts if part)]


def _rung(path: Path) -> Html:
    """One budget in one line: how many looks, and whether the answer held."""
    looks = _looks(path.num_zooms)
    return tag(
        "li",
        tag("span", str(path.resolution), class_="budget"),
        tag("span", "●" * path.num_zooms or "○", class_="dots", title=looks, aria_label=looks),
        tag("span", f"{number(path.visual_tokens)} tokens", class_="quiet"),
        _verdict(path),
    )


def _verdict(path: Path) -> Html:
    if path.verified is None:
        return tag("span", "not verified", class_="badge unsure")
    right = path.verified
    return tag("span", "verified" if right else "wrong", class_="badge right" if right else "badge")


def _looks(count: int) -> str:
    return {0: "no zoom", 1: "1 look"}.get(count, f"{count} looks")


def _path(question: Question, path: Path, sprite: Sprite, opened: bool) -> Html:
    title = (tag("strong", f"Budget {path.resolution}"), tag("span", _looks(path.num_zooms)))
    if path.same_view_as is not None:
        note = f"same first view as {path.same_view_as}, solved once"
        return tag("div", *title, tag("span", note, class_="quiet"), class_="path same")
    view = f"first view {path.view[0]} × {path.view[1]}"
    details = [view, path.finish, duration(path.seconds) if path.seconds is not None else ""]
    note = " · ".join(part for part in details if part)
    summary = tag("summary", *title, tag("span", note, class_="quiet"), _verdict(path))
    body = tag(
        "div", _picture(question, path, sprite), _story(question, path, sprite), class_="body"
    )
    return tag("details", summary, body, class_="path", open="" if opened else None)


def _picture(question: Question, path: Path, sprite: Sprite) -> Html:
    """The first view with the target dashed and every named box drawn, zoomed ones numbered."""
    width, height = question.size
    badge = max(width, height) / 44
    marks = [_rect(look.box, "zoomed" if look.zoomed else "named") for look in path.looks]
    marks += [_rect(box, "target") for box in question.target_boxes]
    marks += [
        _number(look.step, look.box, badge, question.size) for look in path.looks if look.zoomed
    ]
    drawing = tag(
        "svg",
        sprite.use(path.view, question.size),
        *marks,
        view_box=f"0 0 {width} {height}",
        role="img",
        aria_label=f"The picture at budget {path.resolution} with {_looks(path.num_zooms)}.",
    )
    return tag("figure", drawing, class_="picture")


def _rect(box: Box, kind: str) -> Html:
    return tag("rect", x=box.x0, y=box.y0, width=box.width, height=box.height, class_=kind)


def _number(value: int, box: Box, radius: float, size: Size) -> Html:
    """A numbered disc beside the box's upper left corner, kept inside the picture."""
    x = min(max(box.x0 - radius * 0.7, radius), size[0] - radius)
    y = min(max(box.y0 - radius * 0.7, radius), size[1] - radius)
    disc = tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}", class_="disc")
    text = tag(
        "text", str(value), x=f"{x:.1f}", y=f"{y + radius * 0.38:.1f}", class_="count",
        font_size=f"{radius * 1.15:.1f}",
    )  # fmt: skip
    return join(disc, text)


def _story(question: Question, path: Path, sprite: Sprite) -> Html:
    """Thought and crop for each step, then the last thought and the answer."""
    steps = [
        _step(step, tuple(looks), sprite.image)
        for step, looks in groupby(path.looks, key=lambda look: look.step)
    ]
    answer = tag("p", tag("span", "Answer", class_="key"), tag("strong", path.answer, dir="auto"))
    target = tag("p", tag("span", "Target", class_="key"), tag("span", question.target, dir="auto"))
    end = tag(
        "div",
        tag("p", path.final_thought, class_="thought", dir="auto") if path.final_thought else None,
        answer,
        target,
        class_="end",
    )
    return tag("div", tag("ol", *steps, class_="steps") if steps else None, end)


def _step(step: int, looks: Sequence[Look], image: Image.Image | None) -> Html:
    thought = tag("p", looks[0].thought, class_="thought", dir="auto")
    crops = [_crop(look, image) for look in looks]
    return tag("li", tag("span", str(step), class_="disc"), tag("div", thought, *crops))


def _crop(look: Look, image: Image.Image | None) -> Html:
    facts = [look.label, look.tool if look.tool != "zoom" else ""]
    if look.view:
        facts.append(f"{look.view[0]} × {look.view[1]}")
    if look.magnification is not None:
        facts.append(f"{look.magnification:.1f}×")
    if look.visual_tokens is not None:
        facts.append(f"{number(look.visual_tokens)} tokens")
    if look.confidence is not None:
        facts.append(f"confidence {look.confidence:.2f}")
    if look.target_iou is not None:
        facts.append(f"IoU {look.target_iou:.2f}")
    facts += ["not zoomed"] * (not look.zoomed) + ["no gain"] * look.no_gain
    caption = tag("figcaption", " · ".join(fact for fact in facts if fact), dir="auto")
    if image is None or not look.zoomed or look.view is None:
        return tag("figure", caption, class_="crop")
    shown = crop_at(image, look.box, look.view, look.tool)
    crop = tag("img", src=data_uri(shown), alt="", loading="lazy")
    return tag("figure", crop, caption, class_="crop")
