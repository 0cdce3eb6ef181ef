"""From one picture to its visual prompts: objects in the order of their saliency, level by level.

After Chain-of-Focus prompting (ICLR 2025). Here the saliency network, the objects and the drawing
meet; all three are arguments or plain functions. Knows no shards, no listings and no files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from PIL import Image, JpegImagePlugin

from manifests.tables import SCHEMA_VERSION
from pipeline.config import Prompts
from pipeline.errors import BadImage
from pipeline.geometry import Size
from pipeline.saliency import maps
from pipeline.saliency.objects import Instance, Prior, Proposer, annotated, proposed
from pipeline.samples import Rejection
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode, encode, format_of
from pipeline.sources.gps import strip_gps
from pipeline.synthesis.prompt_rows import (
    Row,
    object_row,
    quantised,
    rejected,
    sample_id_of,
    to_png,
)
from pipeline.visual_prompt import (
    PromptObject,
    Rgb,
    Task,
    VisualPrompt,
    colors_of,
    levels,
    with_keypoints,
)

LACKING = {"seg": "no_objects", "pose": "no_keypoints"}
"""Reason of a picture that a task finds nothing in."""
PROPOSED_PX = 1024
"""Longer side of what is looked at for proposals, which is what SAM itself looks at: on a larger
picture only the drawing of its coarse maps takes longer."""
ROUNDING = 1e-9
"""By which a sum may fall short of an equal one: on a flat map all is as salient as the picture."""
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
_ORIENTATION = 0x0112


class Net(Protocol):
    """A saliency network: `saliency.u2net.Saliency` is one."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Fused maps float32 (N, 320, 320) of prepared pictures, float32 (N, 3, 320, 320)."""


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A picture as it is published, and as the network sees it."""

    data: bytes
    """Encoded: as found without the place it was taken at, or drawn and encoded here."""
    seen: Image.Image
    """RGB, upright, decoded from `data`; reduced where decoding is fast."""
    size: Size
    """(width, height) of the whole picture, upright."""
    image_sha256: str
    """Of `data`."""
    source_sha256: str
    """Of the file as found; of the pixels where the picture was drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Salience:
    """What the network says of a picture."""

    fused: np.ndarray
    """float32 (320, 320) in [0, 1], as it came out."""
    prob: np.ndarray
    """float32 HW of the whole picture: what scores are summed over."""
    flat: bool
    """Whether it prefers no place to another: scores are then areas."""


@dataclass(frozen=True, slots=True)
class Prompter:
    """What every picture of a run is worked on with."""

    settings: Prompts
    seed: int
    net: Net
    net_sha256: str
    proposer: Callable[[Prior | None], Proposer] | None = None
    """What finds objects where the source marks none, given where they are likely; None where they
    are not asked for."""
    segmenter_sha256: str | None = None

    def prompts(self, picture: Picture) -> list[Row | Rejection]:
        """A row of `prompts` for each task of the settings, or why there is none."""
        try:
            return self._prompts(picture)
        except BadImage as error:
            why = ("decode", error.reason, error.detail)
            return [rejected(picture.image_id, task, *why) for task in self.settings.tasks]

    def _prompts(self, picture: Picture) -> list[Row | Rejection]:
        published = read(picture, self.settings.decode)
        crowds = self.settings.crowds
        found = annotated(picture.masks, published.size, crowds=crowds) if picture.masks else []
        proposes = self.proposer is not None and not picture.masks
        if not proposes and not any(self._enough(found, task) for task in self.settings.tasks):
            return [self._lacking(picture, found, task) for task in self.settings.tasks]
        salience = salience_of(self.net, published)
        if self.proposer is not None and proposes:
            likely = self.settings.thin and not salience.flat
            proposer = self.proposer((lambda _: salience.fused) if likely else None)
            found = _proposed(published, proposer)
            found = salient(found, salience.prob, self.settings.least_salience)
        ranked = _ranked(found, salience, self.seed, picture.image_id)
        return [
            self._row(picture, published, salience, ranked, task)
            if self._enough(found, task)
            else self._lacking(picture, found, task)
            for task in self.settings.tasks
        ]

    def _enough(self, found: Sequence[Instance], task: str) -> bool:
        """Whether there is enough to show; a query needs nothing."""
        return self.settings.role == "query" or (_count(found, task) >= self.settings.least_objects)

    def _lacking(self, picture: Picture, found: Sequence[Instance], task: str) -> Rejection:
        count, least = _count(found, task), self.settings.least_objects
        reason = "too_few_objects" if count else LACKING[task]
        return rejected(picture.image_id, task, "task", reason, f"{count} of at least {least}")

    def _row(
        self,
        picture: Picture,
        published: Published,
        salience: Salience,
        ranked: Sequence[PromptObject],
        task: Task,
    ) -> Row:
        """A row of `prompts`, pictures included; without objects it has no frames."""
        settings = self.settings
        objects = tuple(with_keypoints(ranked) if task == "pose" else ranked)
        sizes = maps.level_sizes(len(objects), settings.levels)
        prompt = VisualPrompt(sample_id_of(picture.image_id, task), task, objects, tuple(sizes))
        frames = levels(prompt, published.size, settings.overlap) if objects else []
        peak = float(salience.prob.max())
        proposed_here = bool(objects) and not picture.masks
        return {
            "sample_id": prompt.sample_id,
            "image_id": picture.image_id,
            "role": settings.role,
            "task": task,
            "num_objects": len(objects),
            "level_sizes": sizes if objects else [],
            "saliency_scores": [found.saliency for found in objects],
            "saliency_peak": peak,
            "flat_saliency": salience.flat,
            "overlap": settings.overlap,
            "objects": [object_row(found, published.size) for found in objects],
            "width": published.size[0],
            "height": published.size[1],
            "image_sha256": published.image_sha256,
            "source_sha256": published.source_sha256,
            "source": picture.source,
            "license": picture.license,
            "net": self.net_sha256,
            "segmenter": self.segmenter_sha256 if proposed_here else None,
            "schema_version": SCHEMA_VERSION,
            "image": {"bytes": published.data, "path": picture.image_id},
            "saliency": {"bytes": to_png(quantised(salience.prob, peak), level=1), "path": None},
            "frames": [{"bytes": to_png(frame), "path": None} for frame in frames],
        }


def read(picture: Picture, how: Literal["exact", "fast"] = "exact") -> Published:
    """A picture as it is published; raises `BadImage`."""
    if picture.error is not None:
        raise picture.error
    if picture.image is not None:
        source = picture.image.tobytes()
        data = encode(picture.image)
    else:
        source = picture.data or b""
        data = strip_gps(source)
    seen = maps.read_scaled(data, how)
    reduced = how == "fast" and format_of(data) == "JPEG"
    size = _upright_size(data) if reduced else seen.size
    digests = (hashlib.sha256(part).hexdigest() for part in (data, source))
    return Published(data, seen, size, *digests)


def salience_of(net: Net, published: Published) -> Salience:
    """What a network says of a picture."""
    (fused,) = net.predict(maps.preprocess(published.seen)[None])
    return Salience(fused, maps.to_probability(fused, published.size), maps.is_flat(fused))


def salient(found: Sequence[Instance], prob: np.ndarray, least: float) -> list[Instance]:
    """The instances that are at least so salient, the picture's mean being 1.

    The others are ground: sky, walls, floors, which a segmenter finds as it finds things.
    """
    mean = float(prob.mean(dtype=np.float64)) * (1 - ROUNDING)
    sums = maps.scores(prob, [one.mask for one in found]).tolist()
    return [
        one
        for one, inside in zip(found, sums, strict=True)
        if inside >= least * mean * np.count_nonzero(one.mask)
    ]


def _count(found: Sequence[Instance], task: str) -> int:
    """How many a task can show."""
    if task == "pose":
        return sum(one.keypoints is not None for one in found)
    return len(found)


def _proposed(published: Published, proposer: Proposer) -> list[Instance]:
    """What a proposer finds in a picture, at most `PROPOSED_PX` of it being looked at."""
    whole = published.seen.size == published.size
    image = published.seen if whole else decode(published.data)
    if max(image.size) <= PROPOSED_PX:
        return proposed(np.asarray(image), proposer)
    small = image.copy()
    small.thumbnail((PROPOSED_PX, PROPOSED_PX), Image.Resampling.BOX)
    found = [_enlarged(one, image.size) for one in proposed(np.asarray(small), proposer)]
    return sorted(found, key=lambda one: -one.area)


def _enlarged(one: Instance, size: Size) -> Instance:
    """The instance in a larger frame, its edge smooth."""
    grey = Image.fromarray(one.mask.astype(np.uint8) * 255)
    mask = np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128
    return replace(one, mask=mask, area=float(np.count_nonzero(mask)))


def _ranked(
    found: Sequence[Instance], salience: Salience, seed: int, image_id: str
) -> list[PromptObject]:
    """The instances by descending score, of equal ones the larger first; a colour for each."""
    colors = colors_of(seed, image_id, [one.id for one in found])
    scores = maps.scores(salience.prob, [one.mask for one in found]).tolist()
    ranked = [_object(one, *told) for one, *told in zip(found, scores, colors, strict=True)]
    return [ranked[place] for place in maps.order(scores)]


def _object(one: Instance, saliency: float, color: Rgb) -> PromptObject:
    joints = () if one.keypoints is None else tuple(one.keypoints.ravel().tolist())
    return PromptObject(str(one.id), one.category, one.box, one.mask, saliency, color, joints)


def _upright_size(data: bytes) -> Size:
    """(width, height) of a JPEG, which has been decoded before, when upright."""
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        return (image.height, image.width) if sideways else image.size
