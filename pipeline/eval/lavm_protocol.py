"""What an evaluation of large autoregressive vision models asks, chooses, and finds it worth.

After Chain-of-Focus prompting (ICLR 2025): exemplars with their levels, then the query. Settings
and arrays alone: nothing here knows of networks, files or runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, Literal, get_args

import numpy as np

from pipeline.errors import ConfigError, nearest
from pipeline.eval.exemplars import SHORTLIST, TokenIndex, choose, jaccard, most_like
from pipeline.eval.lavm_config import VARIANTS, VariantName, View
from pipeline.eval.scorers import mask_metrics
from pipeline.geometry import Size
from pipeline.visual_prompt import JOINT_COLORS, Task, coco_to_openpose, is_drawn

LavmMethod = Literal["chain", "no-chain", "nearest", "random"]
"""`chain`: relevant, then rich exemplars with all their levels; `no-chain`: the same with their
final frame alone; `nearest`: relevant ones, however rich; `random`: any."""

VERSION = 1
"""Changes when the same settings come to mean other sentences or scores."""
LAVM_METHODS: tuple[LavmMethod, ...] = get_args(LavmMethod)
MAIN_SCORER = "iou"
RETRIEVAL = "exemplar_iou"
"""Mask of the exemplars' final frames against the truth: what choosing alone is worth."""
JOINTS = "joint_recall"
"""A measure of ours: share of the joints that the truth shows that are in the prediction, too."""
SCORERS = {
    "seg": (MAIN_SCORER, "foreground_acc", "pixel_acc", "black_rate", RETRIEVAL),
    "pose": (MAIN_SCORER, "foreground_acc", "pixel_acc", "black_rate", RETRIEVAL, JOINTS),
}
"""By task; each is a row of `scores` for every query and method."""

THRESHOLD = 30
"""Brighter than this in any channel is foreground: black that went through JPEG is darker, the
colours of objects are brighter (20 to 60 tell them apart)."""
JOINT_RADIUS_PX = 8.0
"""How far from its place a joint still counts, in a frame of 256 pixels."""
JOINT_OFF = 42.0
"""Euclidean distance in RGB by which a pixel may differ from a joint's colour: half of what is
between two neighbouring ones, so no pixel stands for both."""

Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class LavmProtocol:
    """One evaluation; raises `ConfigError` for one that cannot be made."""

    prompts: str
    """What exemplars come from: a run of prompts, or a folder in the published layout."""
    queries: str
    """What is predicted: a run of prompts, or a folder of pictures, which has no truth."""
    model: str
    tokenizer: str
    images: str = ""
    """Where the pictures of a folder of prompts lie."""
    truth: str = ""
    """Frames of a folder of queries, in the published layout; empty: there is no truth."""
    task: Task = "seg"
    methods: tuple[LavmMethod, ...] = LAVM_METHODS
    shortlist: int = SHORTLIST
    k: int = 1
    """Exemplars of a sentence."""
    levels: int = 2
    """Frames of each, the last ones of those that the prompts have."""
    threshold: int = THRESHOLD
    variant: VariantName = "delvm"
    """Whose pictures, sampling and limits are used."""
    greedy: bool = False
    """Take the likeliest code each time, instead of drawing as was published."""
    limit: int | None = None
    """The first so many queries."""
    batch: int = 8
    """Queries worked on at a time: how fast, never what comes of it."""

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ConfigError("An evaluation needs methods, each one once.")
        for method in self.methods:
            if method not in LAVM_METHODS:
                raise ConfigError(f"There is no method '{method}'.", nearest(method, LAVM_METHODS))
        if self.task not in SCORERS:
            raise ConfigError(f"There is no task '{self.task}'.", nearest(self.task, SCORERS))
        if self.variant not in VARIANTS:
            fix = nearest(self.variant, VARIANTS)
            raise ConfigError(f"There is no variant '{self.variant}'.", fix)
        if min(self.k, self.levels, self.batch, self.limit or 1) < 1 or self.limit == 0:
            raise ConfigError("Exemplars, levels, queries and batches are counted from 1.")
        if self.shortlist < self.k:
            raise ConfigError(
                f"{self.k} exemplars cannot come from a shortlist of {self.shortlist}.",
                "Make --shortlist longer.",
            )
        if not 0 <= self.threshold < 255:
            raise ConfigError("A threshold is from 0 to 254.", "20 to 60 tell colours from black.")

    @property
    def benchmark(self) -> str:
        """Names it in `scores`."""
        return f"lavm-{self.task}"

    def shown(self, method: LavmMethod) -> int:
        """How many of an exemplar's frames a method shows."""
        return 1 if method == "no-chain" else self.levels

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LavmProtocol:
        """A protocol from plain values, as `describe` gives them."""
        return cls(**{**values, "methods": tuple(values["methods"])})

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"methods": list(self.methods)}

    def semantic(self) -> dict[str, Any]:
        """What decides rows besides the pictures and the weights themselves."""
        left_out = ("prompts", "queries", "images", "truth", "model", "tokenizer", "batch")
        told = {name: value for name, value in self.describe().items() if name not in left_out}
        return told | {"version": VERSION, "joints": [JOINT_RADIUS_PX, JOINT_OFF]}


@dataclass(frozen=True, slots=True)
class Pick:
    """Exemplars of a query: numbers within the pool in the order shown, and what they are like."""

    numbers: tuple[int, ...]
    jaccard: tuple[float, ...]
    richness: tuple[int, ...]


def picked(
    asked: LavmProtocol,
    method: LavmMethod,
    pool: TokenIndex,
    rich: np.ndarray,
    query: np.ndarray,
    rng: np.random.Generator,
) -> Pick:
    """What a method chooses from a pool, of which `rich` (N,) is known, for a query's codes (L,).

    `rng` is for `random` alone: the query's own, so a choice hangs on no other query.
    """
    likeness = jaccard(pool, query)
    if method == "nearest":
        numbers = most_like(likeness, asked.k).tolist()
    elif method == "random":
        numbers = rng.choice(len(pool), min(asked.k, len(pool)), replace=False).tolist()
    else:
        numbers = choose(pool, rich, query, asked.shortlist, asked.k)
    like = tuple(float(likeness[number]) for number in numbers)
    return Pick(tuple(numbers), like, tuple(int(rich[number]) for number in numbers))


def mask_of(picture: np.ndarray, threshold: int) -> np.ndarray:
    """What is brighter than the threshold in any channel, bool HW, of uint8 HWC."""
    mask: np.ndarray = picture.max(-1) > threshold
    return mask


def measured(
    asked: LavmProtocol,
    prediction: np.ndarray,
    truth: np.ndarray,
    exemplars: Sequence[np.ndarray],
    people: Sequence[Sequence[float]],
) -> Metrics:
    """Every scorer's value, None where it is not defined.

    Pictures are uint8 HWC of one size: the prediction, the truth and the exemplars' final frames,
    through the same resize and crop; `people` are COCO's keypoints in that frame. Undefined are an
    `iou` of two empty masks, a `foreground_acc` without foreground, and a `joint_recall` of a truth
    that shows no joint.
    """
    wanted = mask_of(truth, asked.threshold)
    found: Metrics = dict(_defined(mask_metrics(mask_of(prediction, asked.threshold), wanted)))
    overlaps = [mask_metrics(mask_of(one, asked.threshold), wanted)["iou"] for one in exemplars]
    known = [overlap for overlap in overlaps if not isnan(overlap)]
    found[RETRIEVAL] = sum(known) / len(known) if known else None
    if asked.task == "pose":
        found[JOINTS] = joint_recall(prediction, truth, people)
    return {scorer: found[scorer] for scorer in SCORERS[asked.task]}


def joint_recall(
    prediction: np.ndarray, truth: np.ndarray, people: Sequence[Sequence[float]]
) -> float | None:
    """Share of the joints shown by the truth that the prediction shows at their place.

    A joint is shown where a pixel within `JOINT_RADIUS_PX` has its colour. A measure of ours: what
    the published pose metric is, nobody says. None where the truth shows no joint.
    """
    wanted = found = 0
    for keypoints in people:
        for number, joint in enumerate(coco_to_openpose(keypoints)):
            if is_drawn(joint) and _shows(truth, joint, number):
                wanted += 1
                found += _shows(prediction, joint, number)
    return found / wanted if wanted else None


def placed(keypoints: Sequence[float], size: Size, side: int, view: View) -> list[float]:
    """COCO's keypoints of a picture of (width, height) in the square frame that a model sees.

    Of the crop, the shorter side becomes `side`, and the middle is kept; squashed, both sides do.
    """
    width, height = size
    across, down = side / width, side / height
    left = top = 0.0
    if view == "crop":
        across = down = side / min(size)
        left, top = (width * across - side) / 2, (height * down - side) / 2
    joints = np.asarray(keypoints, float).reshape(-1, 3)
    seen = joints[:, 2:] > 0
    moved = np.where(seen, joints[:, :2] * (across, down) - (left, top), 0.0)
    flat: list[float] = np.concatenate([moved, joints[:, 2:]], 1).ravel().tolist()
    return flat


def _shows(picture: np.ndarray, joint: Sequence[float], number: int) -> bool:
    """Whether a pixel near a joint's place has its colour; none has outside the picture."""
    x, y = joint[0], joint[1]
    height, width = picture.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        return False
    reach = JOINT_RADIUS_PX
    x0, y0 = max(0, int(x - reach)), max(0, int(y - reach))
    near = picture[y0 : int(y + reach) + 2, x0 : int(x + reach) + 2].astype(float)
    rows, columns = np.indices(near.shape[:2])
    inside = np.hypot(columns + x0 - x, rows + y0 - y) <= reach
    off = np.linalg.norm(near - np.asarray(JOINT_COLORS[number], float), axis=-1)
    return bool((inside & (off <= JOINT_OFF)).any())


def _defined(metrics: Mapping[str, float]) -> Metrics:
    """NaN as None."""
    return {name: None if isnan(value) else value for name, value in metrics.items()}
