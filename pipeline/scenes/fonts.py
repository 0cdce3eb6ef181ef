"""Letterforms to draw with: families that come in packages of the registry, and their faces.

A family whose package is missing is a `ConfigError`: one font never stands in for another. The
licences are listed in docs/fonts.md. Families that are held out are for measuring only: nothing is
trained on them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from pipeline.errors import ConfigError, nearest
from pipeline.scenes.tags import embedded_font

REGULAR, BOLD = 400, 700
"""Usual weights, on the scale of 100 (hairline) to 900 (black)."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of letterforms: where its files lie, and how it may be used."""

    name: str
    kind: str
    """sans, serif, mono, condensed, hand or rounded."""
    package: str
    """The distribution that holds it, as it is installed."""
    licence: str
    """SPDX identifier of the font's licence."""
    module: str = ""
    """The import package in which the files lie; empty for Pillow's own letterforms."""
    files: Mapping[int, str] | None = None
    """Path inside the package by weight; the file that serves several weights has a weight axis."""
    held_out: bool = False
    caps_only: bool = False
    """Small letters look like capitals: what is drawn must be spelt in capitals."""

    @property
    def weights(self) -> tuple[int, ...]:
        """The weights there are, lightest first."""
        return tuple(sorted(self.files)) if self.files else (REGULAR,)


def _variable(file: str) -> dict[int, str]:
    return {REGULAR: file, BOLD: file}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("aileron", "sans", "pillow", "CC0-1.0"),
        Family(
            "open-sans", "sans", "ttf-opensans", "Apache-2.0", "ttf_opensans",
            {REGULAR: "ttf/OpenSans-Regular.ttf", BOLD: "ttf/OpenSans-Bold.ttf"},
        ),
        Family(
            "manrope", "sans", "font-manrope", "OFL-1.1", "font_manrope",
            {REGULAR: "files/Manrope-Regular.ttf", BOLD: "files/Manrope-Bold.ttf"},
        ),
        Family(
            "fredoka-one", "rounded", "font-fredoka-one", "OFL-1.1", "font_fredoka_one",
            {REGULAR: "files/FredokaOne-Regular.ttf"},
        ),
        Family(
            "caladea", "serif", "font-caladea", "Apache-2.0", "font_caladea",
            {REGULAR: "files/Caladea-Regular.ttf", BOLD: "files/Caladea-Bold.ttf"},
        ),
        Family(
            "roboto-slab", "serif", "fontpkg-roboto-slab", "Apache-2.0", "fontpkg_roboto_slab",
            _variable("files/RobotoSlab[wght].ttf"),
        ),
        Family(
            "roboto-mono", "mono", "fontpkg-roboto-mono", "OFL-1.1", "fontpkg_roboto_mono",
            _variable("files/RobotoMono[wght].ttf"),
        ),
        Family(
            "oswald", "condensed", "fontpkg-oswald", "OFL-1.1", "fontpkg_oswald",
            _variable("files/Oswald[wght].ttf"),
        ),
        Family(
            "bebas-neue", "condensed", "fontpkg-bebas-neue", "OFL-1.1", "fontpkg_bebas_neue",
            {REGULAR: "files/BebasNeue-Regular.ttf"}, caps_only=True,
        ),
        Family(
            "amatic-sc", "hand", "font-amatic-sc", "OFL-1.1", "font_amatic_sc",
            {REGULAR: "files/AmaticSC-Regular.ttf", BOLD: "files/AmaticSC-Bold.ttf"},
            caps_only=True,
        ),
        Family(
            "caveat", "hand", "fontpkg-caveat", "OFL-1.1", "fontpkg_caveat",
            _variable("files/Caveat[wght].ttf"),
        ),
        Family(
            "intuitive", "hand", "font-intuitive", "OFL-1.1", "font_intuitive",
            {REGULAR: "files/Intuitive.ttf"},
        ),
        Family(
            "hanken-grotesk", "sans", "font-hanken-grotesk", "OFL-1.1", "font_hanken_grotesk",
            {REGULAR: "files/HankenGrotesk-Regular.otf", BOLD: "files/HankenGrotesk-Bold.otf"},
            held_out=True,
        ),
        Family(
            "lora", "serif", "fontpkg-lora", "OFL-1.1", "fontpkg_lora",
            _variable("files/Lora[wght].ttf"), held_out=True,
        ),
        Family(
            "jetbrains-mono", "mono", "fontpkg-jetbrains-mono", "OFL-1.1",
            "fontpkg_jetbrains_mono", _variable("files/JetBrainsMono[wght].ttf"), held_out=True,
        ),
        Family(
            "barlow-condensed", "condensed", "fontpkg-barlow-condensed", "OFL-1.1",
            "fontpkg_barlow_condensed",
            {
                REGULAR: "files/BarlowCondensed-Regular.ttf",
                BOLD: "files/BarlowCondensed-Bold.ttf",
            },
            held_out=True,
        ),
    )
}  # fmt: skip

TRAINING = tuple(name for name, family in FAMILIES.items() if not family.held_out)
HELD_OUT = tuple(name for name, family in FAMILIES.items() if family.held_out)
CALIBRATION = ("hanken-grotesk", "lora")
"""Held out from training, and used to calibrate what was trained."""
TEST = tuple(name for name in HELD_OUT if name not in CALIBRATION)
"""Used for nothing but measuring."""


def face(name: str, size_px: float, weight: int = REGULAR) -> ImageFont.FreeTypeFont:
    """A family's letterforms at `size_px` pixels per em, in the nearest weight that it has.

    Raises `ConfigError` for an unknown family and for one whose package is not installed.
    """
    family = FAMILIES.get(name)
    if family is None:
        raise ConfigError(f"There is no font family '{name}'.", nearest(name, FAMILIES))
    if not family.files:
        return embedded_font(size_px)
    best = min(family.weights, key=lambda have: abs(have - weight))
    # The basic layout is the same everywhere; the other one depends on what Pillow was built with.
    font = ImageFont.truetype(
        find_file(family, best), size_px, layout_engine=ImageFont.Layout.BASIC
    )
    if list(family.files.values()).count(family.files[best]) > 1:
        font.set_variation_by_axes([best])
    return font


def find_file(family: Family, weight: int) -> Path:
    """The font file of a family that comes in a package; `ConfigError` where that is missing."""
    assert family.files is not None
    spec = importlib.util.find_spec(family.module)
    places = spec.submodule_search_locations if spec else None
    path = Path(next(iter(places))) / family.files[weight] if places else None
    if path is None or not path.is_file():
        raise ConfigError(
            f"The font '{family.name}' is missing.", f"Run `pip install {family.package}`."
        )
    return path
