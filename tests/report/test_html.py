"""Markup comes from this project only; whatever else there is stays text."""

from __future__ import annotations

import html

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.html import Html, escape, join, tag


@given(st.text())
def test_no_text_opens_a_tag_or_closes_an_attribute(text: str) -> None:
    written = tag("p", text, title=text)
    inside = written.removeprefix('<p title="').removesuffix("</p>")
    title, _, child = inside.partition('">')
    for part in (title, child):
        assert not set(part) & set("<>\"'")


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_what_was_written_is_what_is_read(text: str) -> None:
    assert html.unescape(escape(text)) == text


def test_control_characters_and_lone_surrogates_do_not_survive() -> None:
    assert escape("a\x00\x1b[31m\ud800b") == "a[31m?b"


def test_markup_is_not_escaped_twice() -> None:
    assert tag("p", tag("b", "&")) == "<p><b>&amp;</b></p>"
    assert isinstance(join("a", None, Html("<br>")), Html)
    assert join("a", None, Html("<br>")) == "a<br>"


def test_attribute_names_are_those_of_html_and_svg() -> None:
    assert tag("svg", view_box="0 0 1 1", class_="x", aria_hidden="true", role=None) == (
        '<svg viewBox="0 0 1 1" class="x" aria-hidden="true"></svg>'
    )
    assert tag("meta", name="viewport") == '<meta name="viewport">'
