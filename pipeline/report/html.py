"""HTML that cannot be written unescaped: only this file turns text into markup.

A child that is a plain `str` is escaped; only an `Html` goes through as it is.
"""

from __future__ import annotations

import html
import unicodedata


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()


Child = Html | str | int | None


def escape(value: object) -> Html:
    """Text as markup: entities for `& < > " '`, control characters dropped."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    return Html(html.escape(kept, quote=True))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """One element: `class_` is `class`, `view_box` is `viewBox`, None is left out."""
    marks = "".join(
        f' {_NAMES.get(key, key.rstrip("_").replace("_", "-"))}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{marks}>")
    return Html(f"<{name}{marks}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children one after the other, plain text escaped, None left out."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children if c is not None))


_NAMES = {"view_box": "viewBox", "preserve_aspect": "preserveAspectRatio"}
_VOID = frozenset({"meta", "img", "br", "hr", "link"})
