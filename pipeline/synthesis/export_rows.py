"""A run's rows as examples for a trainer: the chat, the pictures it shows, what the answer is.

The chat is `trajectory.render`'s, every picture is cut again from the published pixels by the
observation law, boxes are in the numbers of the family that will be trained. Knows nothing of a
trainer's columns; a row that cannot be an example is told with the reason, never dropped.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from manifests.tables import KEY
from pipeline.agent.families import Family
from pipeline.answers import written_in
from pipeline.crops import region_shown
from pipeline.errors import BadImage, GrammarError, InvalidBox
from pipeline.geometry import Box, Size, four_numbers, view_size
from pipeline.grammar import Profile
from pipeline.runner.storage import Storage
from pipeline.samples import Sample
from pipeline.sources.decode import decode, encode
from pipeline.synthesis.import_check import is_imported
from pipeline.synthesis.recheck import look_at_budget, solved_at
from pipeline.synthesis.stored import stored_rows
from pipeline.trajectory import FocusStep, Message, Observation, Trajectory, render
from pipeline.views import MAGNIFY, shown, whole_at

Row = Mapping[str, Any]
Kind = Literal["sft", "rl"]
Split = Literal["train", "validation"]
PictureFormat = Literal["png", "jpeg"]
SPLITS: tuple[Split, ...] = ("train", "validation")
BATCH_ROWS = 8
PNG_LEVEL = 3

COLUMNS = (
    *KEY,
    *("image_id", "image_sha256", "source_sha256", "width", "height", "view_w", "view_h"),
    *("same_view_as", "question", "options", "target", "target_boxes", "task", "answer"),
    *("final_thought", "verified", "policy", "steps", "weight"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows become examples, and how they are told."""

    family: Family
    kind: Kind = "sft"
    profile: Profile = "cof-v2"
    split: float = 0.05
    """Share of the source pictures that is held out, in [0, 1)."""
    only_verified: bool = True
    min_weight: float = 0.0
    """Rows of less weight are left out, and rows of weight 0 always."""
    pictures: PictureFormat = "png"


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One row as a trainer is told it."""

    sample_id: str
    image_id: str
    resolution: int
    rollout: int
    split: Split
    messages: list[Message]
    """The whole chat, or for `rl` what comes before the first turn of the model."""
    pictures: tuple[bytes, ...]
    """Encoded, in the order of the image blocks."""
    sizes: tuple[Size, ...]
    """(width, height) of each picture."""
    view_sha256: tuple[str, ...]
    """Digests of each picture's pixels, uint8 HWC, whatever encodes them."""
    question: str
    options: tuple[str, ...]
    target: str
    """The right answer, a box in the family's numbers; empty where the run has none."""
    target_boxes: list[list[float]]
    """Where it can be seen, in the family's numbers."""
    task: str
    weight: float
    source: bytes
    """The published picture: what a tool must cut from."""
    ending: str
    """Of the names of the pictures: `png` or `jpg`."""

    @property
    def name(self) -> str:
        """Of the row, the same wherever it is exported: 16 hex digits."""
        text = "\x1f".join([self.sample_id, str(self.resolution), str(self.rollout)])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is no example, and why."""

    sample_id: str
    resolution: int
    rollout: int
    reason: str
    """`not_verified`, `weight`, `no_target`, `same_prompt`, `picture`, `view`, `box`, `not_said`;
    of recipes `no_recipe`."""
    detail: str = ""


class Reader:
    """Turns rows into examples; consecutive rows share a picture, and the set of their prompts."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._picture: tuple[bytes, str, Image.Image] | None = None
        self._image_id = ""
        self._prompts: set[tuple[str, int]] = set()

    def read(self, row: Row) -> Example | LeftOut:
        """The row as an example, or why it is none; nothing of a row is ever raised."""
        try:
            refused = self._refused(row)
            return left_out(row, *refused) if refused else self._example(row)
        except BadImage as error:
            return left_out(row, "picture", f"{error.reason} {error.detail}".strip())
        except InvalidBox as error:
            return left_out(row, "box", error.message)
        except GrammarError as error:
            return left_out(row, "not_said", error.message)

    def _refused(self, row: Row) -> tuple[str, str] | None:
        """(reason, detail) where the row is not wanted."""
        wanted = self._wanted
        if wanted.only_verified and not row["verified"]:
            return "not_verified", ""
        weight = _weight(row)
        if not weight > 0 or weight < wanted.min_weight:
            return "weight", f"{weight:g}"
        if wanted.kind == "sft":
            return None
        if not row["target"]:
            return "no_target", ""
        return self._asked_before(row)

    def _asked_before(self, row: Row) -> tuple[str, str] | None:
        """Where the same question about the same view was asked: rollouts share a prompt."""
        if row["image_id"] != self._image_id:
            self._image_id, self._prompts = row["image_id"], set()
        prompt = (row["sample_id"], solved_at(row))
        if prompt in self._prompts:
            return "same_prompt", f"of {prompt[0]} at {prompt[1]}"
        self._prompts.add(prompt)
        return None

    def _example(self, row: Row) -> Example | LeftOut:
        image, data = self._decoded(row)
        sample, trajectory, looks = path_of(row, image)
        said = (row["view_w"], row["view_h"])
        if not is_imported(row) and trajectory.view.size != said:
            return left_out(row, "view", f"{said}; the law makes it {trajectory.view.size}")
        wanted = self._wanted
        frame = wanted.family.frame(sample.size, trajectory.view.size)
        messages = render(sample, trajectory, wanted.profile, frame)
        if wanted.kind == "rl":
            messages, looks = messages[:2], looks[:1]
        boxes = [Box(*four_numbers(values)) for values in row["target_boxes"] or ()]
        views = [shown(image, look).pixels for look in looks]
        return Example(
            sample_id=sample.sample_id,
            image_id=sample.image_id,
            resolution=trajectory.resolution,
            rollout=trajectory.rollout,
            split=split_of(row["source_sha256"] or sample.image_id, wanted.split),
            messages=messages,
            pictures=tuple(_encoded(view, wanted.pictures) for view in views),
            sizes=tuple(look.size for look in looks),
            view_sha256=tuple(hashlib.sha256(view.tobytes()).hexdigest() for view in views),
            question=sample.question,
            options=sample.options,
            target=written_in(frame, sample.question, row["target"] or ""),
            target_boxes=[list(box.as_written(frame)) for box in boxes],
            task=row["task"] or "",
            weight=_weight(row),
            source=data,
            ending="png" if wanted.pictures == "png" else "jpg",
        )

    def _decoded(self, row: Row) -> tuple[Image.Image, bytes]:
        """The published picture and its bytes; raises `BadImage` for another than the row's."""
        data = (row["image"] or {}).get("bytes") or b""
        if self._picture is None or self._picture[0] != data:
            self._picture = None
            self._picture = (data, hashlib.sha256(data).hexdigest(), decode(data))
        _, sha256, image = self._picture
        if (sha256, image.size) != (row["image_sha256"], (row["width"], row["height"])):
            raise BadImage("changed", "it is not the one that the row was made with")
        return image, data


def rows_of(storage: Storage, path: str, more: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a committed file, a few at a time, with `more` columns; what it lacks is None."""
    yield from stored_rows(storage, path, BATCH_ROWS, (*COLUMNS, *more, "image.bytes"))


def path_of(row: Row, image: Image.Image) -> tuple[Sample, Trajectory, list[Observation]]:
    """The sample, its trajectory, and every view in the order of `render`; raises `InvalidBox`."""
    size, options = (row["width"], row["height"]), tuple(row["options"] or ())
    view = whole_at(size, solved_at(row))
    steps, views = [], [view]
    for told in row["steps"] or ():
        looks = _looks(row, told, size)
        views += looks
        steps.append(_step(told, looks[-1] if looks else None))
    sample = Sample(row["sample_id"], row["image_id"], image, size, row["question"], options)
    trajectory = Trajectory(
        sample_id=row["sample_id"],
        resolution=row["resolution"],
        rollout=row["rollout"],
        view=view,
        steps=tuple(steps),
        final_thought=row["final_thought"] or "",
        answer=row["answer"] or "",
        finish="answered",
        policy=row["policy"] or "",
        verified=row["verified"],
    )
    return sample, trajectory, views


def split_of(source: str, share: float) -> Split:
    """Where all rows about a source picture go, by the digest of its name or bytes."""
    digest = hashlib.sha256(f"split:{source}".encode("utf-8", "surrogatepass")).digest()
    return "validation" if int.from_bytes(digest[:8], "big") < share * 2**64 else "train"


def _looks(row: Row, told: Row, size: Size) -> list[Observation]:
    """The view of each zoomed box of a step; its magnification is the last one's."""
    if len(told["boxes"]) != len(told["zoomed"]):
        raise InvalidBox("A step has another number of boxes than of marks which were zoomed.")
    pairs = zip(told["boxes"], told["zoomed"], strict=True)
    asked = [Box(*four_numbers(values)) for values, was in pairs if was]
    if is_imported(row):
        return [_published(region_shown(told["tool"], box, size), row) for box in asked]
    said, budget = [None] * (len(asked) - 1) + [told["magnification"]], solved_at(row)
    known = zip(asked, said, strict=False)
    return [look_at_budget(box, size, budget, m).observation for box, m in known]


def _published(region: Box, row: Row) -> Observation:
    """A look of an imported row: its tool's region, in the row's budget by our law."""
    edges = int(region.width), int(region.height)
    return Observation(region, view_size(edges, row["resolution"], magnify=MAGNIFY))


def _step(told: Row, look: Observation | None) -> FocusStep:
    return FocusStep(
        thought=told["thought"] or "",
        boxes=tuple(Box(*four_numbers(values)) for values in told["boxes"]),
        zoomed=tuple(map(bool, told["zoomed"])),
        label=told["label"] or "",
        tool=told["tool"] or "zoom",
        observation=look,
    )


def _weight(row: Row) -> float:
    return 1.0 if row["weight"] is None else float(row["weight"])


def _encoded(pixels: np.ndarray, kind: PictureFormat) -> bytes:
    """uint8 HWC as PNG, pixel for pixel, or as JPEG; the same pixels give the same bytes."""
    image = Image.fromarray(pixels)
    if kind == "jpeg":
        return encode(image)
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=PNG_LEVEL)
    return sink.getvalue()


def left_out(row: Row, reason: str, detail: str = "") -> LeftOut:
    """A row that is no example."""
    return LeftOut(row["sample_id"], row["resolution"], row["rollout"], reason, detail)
