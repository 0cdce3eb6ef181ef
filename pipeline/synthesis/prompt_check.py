"""Proof that published prompts show what they say: draw again, sum again, nest again.

Takes nothing but the committed Parquet of `prompts`: frames follow from the objects, scores from
the stored map, levels from the number of objects. Where the run's network is at hand and ran on a
CPU, it is asked for the map again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import BadImage, ModelError
from pipeline.models import weights
from pipeline.runner.rundir import read_run, records
from pipeline.runner.storage import storage_at
from pipeline.saliency import maps
from pipeline.scenes.regions import mask_box
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode
from pipeline.synthesis.prompt_rows import from_png, prompt_of
from pipeline.synthesis.prompting import Net, Salience, read, salience_of
from pipeline.synthesis.stored import stored_rows
from pipeline.visual_prompt import VisualPrompt, levels

KIND = "prompts"
BATCH_ROWS = 4
TOLERANCE = 1e-6
"""Of a score, relative: what sums of other order and type differ by."""
MAP_OFF = 0.005
"""Mean difference of two maps of one network, of their peak: rounding, other decoders and CPUs."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    rows: int
    frames: int
    """Frames that were drawn again."""
    maps: int
    """Rows whose map the network gave again."""
    problems: tuple[str, ...]
    """What does not follow from the row's own columns, one sentence each."""

    @property
    def holds(self) -> bool:
        return not self.problems


def recheck(run_dir: str | Path) -> Report:
    """Look at every committed row of `prompts` again; memory does not grow with the run."""
    storage = storage_at(str(run_dir))
    tally = _Tally(_Network((read_run(storage).get("config") or {}).get("prompts") or {}))
    paths = [f.path for record in records(storage) for f in record.files if f.kind == KIND]
    for path in paths:
        try:
            for row in stored_rows(storage, path, BATCH_ROWS):
                tally.add(row)
        except (OSError, pa.ArrowException) as error:
            tally.problems.append(f"{path} cannot be read: {error}.")
    return Report(tally.rows, tally.frames, tally.network.asked, tuple(tally.problems))


class _Network:
    """The run's network; opened once a row names the very file that is at hand."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.asked = 0
        self._settings = settings
        self._net: Net | None = None
        self._said: tuple[str, Salience] | None = None

    def problems(self, row: Row) -> Iterator[str]:
        """Where the stored map is not what the network says of the published picture."""
        if self._settings.get("device") != "cpu" or row["net"] != self._sha256:
            return
        self.asked += 1
        salience, peak = self._salience(row), row["saliency_peak"]
        stored = from_png(row["saliency"]["bytes"]).astype(np.float64) * (peak / 255)
        off = float(np.abs(stored - salience.prob).mean() / salience.prob.max())
        if off > MAP_OFF:
            yield f"the map is off by {off:.3f} on average from what the network says."

    @cached_property
    def _sha256(self) -> str:
        """Of the network's file, "" where there is none."""
        try:
            return weights.sha256_of(weights.find(self._settings["net"]))
        except (ModelError, OSError):
            return ""

    def _salience(self, row: Row) -> Salience:
        """What the network says; the rows of a picture follow one another."""
        if self._said is None or self._said[0] != row["image_sha256"]:
            if self._net is None:
                from pipeline.saliency.u2net import Saliency, load

                self._net = Saliency(load(self._settings["net"]))
            picture = Picture(row["image_id"], data=row["image"]["bytes"])
            published = read(picture, self._settings["decode"])
            self._said = row["image_sha256"], salience_of(self._net, published)
        return self._said[1]


@dataclass
class _Tally:
    """Counts so far."""

    network: _Network
    rows: int = 0
    frames: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Look at a row; what is wrong with it is noted, never raised."""
        self.rows += 1
        self.frames += len(row["frames"])
        try:
            said = [*_told(row), *_picture(row), *_drawn(row)]
            said += [] if said else self.network.problems(row)
        except BadImage as error:
            said = [f"a picture or a mask cannot be decoded ({error.reason})."]
        except (KeyError, ValueError) as error:
            said = [f"the row tells of no prompt ({error})."]
        self.problems += [f"{row['sample_id']}: {one}" for one in said]


def _told(row: Row) -> Iterator[str]:
    """What of a row's numbers does not follow from its objects."""
    objects, sizes = row["objects"], row["level_sizes"]
    scores = [one["saliency"] for one in objects]
    wanted = maps.level_sizes(len(objects), len(sizes)) if sizes else []
    derived = {
        "sample_id": (row["sample_id"], f"{row['image_id']}#{row['task']}"),
        "num_objects": (row["num_objects"], len(objects)),
        "level_sizes": (sizes, wanted),
        "the number of frames": (len(row["frames"]), len(sizes)),
        "saliency_scores": (row["saliency_scores"], scores),
        "the order of the scores": (scores, sorted(scores, reverse=True)),
        "the ids": (len({one["id"] for one in objects}), len(objects)),
    }
    yield from _differing(derived)
    if objects and not sizes:
        yield "there are objects, and no level shows them."


def _picture(row: Row) -> Iterator[str]:
    """What is not true of the published picture."""
    data = (row["image"] or {}).get("bytes") or b""
    size = decode(data).size
    yield from _differing(
        {
            "image_sha256": (row["image_sha256"], hashlib.sha256(data).hexdigest()),
            "size": ((row["width"], row["height"]), size),
        }
    )


def _drawn(row: Row) -> Iterator[str]:
    """What of the frames and of the scores does not follow from the outlines and the map."""
    size = (row["width"], row["height"])
    stored = from_png(row["saliency"]["bytes"])
    if stored.shape != size[::-1]:
        yield f"the map is of {stored.shape[1]} x {stored.shape[0]} pixels."
        return
    if row["flat_saliency"] and int(stored.min()) < 255:
        yield "the map prefers some places, and is said to be flat."
    if not row["level_sizes"]:
        return
    prompt = prompt_of(row)
    yield from _summed(prompt, stored, row["saliency_peak"])
    frames = [from_png(frame["bytes"]) for frame in row["frames"]]
    again = levels(prompt, size, row["overlap"])
    for number, (frame, drawn) in enumerate(zip(frames, again, strict=False), start=1):
        if not np.array_equal(frame, drawn):
            yield f"level {number} is not what its objects look like."
    if row["overlap"] != "wrap":  # whose sums can come out black
        shown = [frame.any(axis=-1) for frame in frames]
        for number, (fewer, more) in enumerate(pairwise(shown), start=1):
            if fewer.shape != more.shape or (fewer & ~more).any():
                yield f"level {number} shows what level {number + 1} does not."


def _summed(prompt: VisualPrompt, stored: np.ndarray, peak: float) -> Iterator[str]:
    """Boxes that are not tight, and scores that are not the sum of the map inside the mask."""
    masks = [np.asarray(found.mask) for found in prompt.objects]
    again = maps.scores(stored.astype(np.float64) * (peak / 255), masks)
    for found, mask, score in zip(prompt.objects, masks, again.tolist(), strict=True):
        if not mask.any() or mask_box(mask) != found.box:
            yield f"the box of object {found.id} is not that of its mask."
        rounding = np.count_nonzero(mask) * 0.5 / 255 * peak
        if abs(score - found.saliency) > rounding + TOLERANCE * abs(found.saliency):
            yield f"object {found.id} scores {found.saliency:.6g}; the map says {score:.6g}."


def _differing(derived: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    for name, (said, found) in derived.items():
        if said != found:
            yield f"{name} is {said}; it should be {found}."
