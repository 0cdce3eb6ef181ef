"""The known layouts, and which of them a record is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError, nearest
from pipeline.sources.published import chain_of_focus, deepeyes, mini_o3, visual_cot
from pipeline.sources.published.records import Layout

AUTO = "auto"
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        chain_of_focus.LAYOUT,
        deepeyes.LAYOUT,
        mini_o3.LAYOUT,
        visual_cot.LAYOUT,
    )
}


def known_layout(name: str) -> Layout:
    """The layout of that name; raises `ConfigError` naming the nearest one."""
    if name not in LAYOUTS:
        raise ConfigError(f"There is no layout '{name}'.", nearest(name, (AUTO, *LAYOUTS)))
    return LAYOUTS[name]


def layout_of(record: Any) -> str:
    """The layout that a record is in, "" when it is in none."""
    if not isinstance(record, dict):
        return ""
    return next((name for name, known in LAYOUTS.items() if known.recognises(record)), "")


def about_layouts() -> str:
    """Each known layout and what tells it, as one sentence."""
    return "Known: " + "; ".join(f"{name}: {known.about}" for name, known in LAYOUTS.items()) + "."
