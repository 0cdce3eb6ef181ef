"""`scenes[:N][@WxH]`: drawn pictures; the same number and seed give the same picture anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from PIL import Image

from pipeline.errors import BadImage, ConfigError
from pipeline.geometry import Size
from pipeline.samples import rng_for
from pipeline.sources.base import Entry, Picture

DEFAULT_COUNT = 256
MOST = 1_000_000
SIZE: Size = (2048, 1536)
LEAST_PX, MOST_PX = 32, 8192
_LICENSE = "CC0-1.0"


class ScenesSource:
    """`count` drawn pictures; a key is the scene's number with six digits."""

    def __init__(self, count: int = DEFAULT_COUNT, seed: int = 0, size: Size = SIZE) -> None:
        if not 1 <= count <= MOST:
            raise ConfigError(f"scenes:{count} is not possible.", f"Ask for 1 to {MOST:,} scenes.")
        if not all(LEAST_PX <= side <= MOST_PX for side in size):
            fix = f"Sides are {LEAST_PX} to {MOST_PX} pixels."
            raise ConfigError(f"Scenes of {size[0]}x{size[1]} cannot be drawn.", fix)
        self.count, self.seed, self.size = count, seed, size
        self.name = "scenes"
        self.skipped: Counter[str] = Counter()

    def entries(self) -> Iterator[Entry]:
        """One entry for each scene."""
        for number in range(self.count):
            yield Entry(f"{number:06d}", 0, "")

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The one picture of a scene."""
        from pipeline.scenes.draw import scene

        if not entry.key.isdecimal():
            error = BadImage("source_missing", f"no scene '{entry.key}'")
            yield Picture(entry.key, source=self.name, error=error)
            return
        drawn = scene(rng_for(self.seed, "scene", int(entry.key)), self.size)
        image = Image.fromarray(drawn.image)
        yield Picture(entry.key, image=image, source=self.name, license=_LICENSE)
