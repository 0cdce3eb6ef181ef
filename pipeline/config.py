"""Settings of a run: frozen, closed, and told apart by whether they change what is made.

A setting is named like the record it shapes; a mistyped name fails at once and names the nearest
real one. Where settings come from is `config_files`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError, nearest
from pipeline.geometry import FACTOR, RESOLUTIONS


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


TaskKind = Literal[
    "needles", "signs", "source", "annotated", "written", "closeup", "change", "count", "where"
]
BUDGETS: Mapping[str, tuple[int, ...]] = {
    "paper": RESOLUTIONS,
    "doubling": (224, 448, 896, 1792, 3840),
}
"""Budgets by name: the eight of the paper, and five that double the side."""


def _listed(value: Any) -> Any:
    """A text with commas as its parts; a single value as a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return (value,) if isinstance(value, int) else value


class Task(_Settings):
    """What is asked about a picture."""

    kind: tuple[TaskKind, ...] = ("needles",)
    """`needles`: tags put onto any picture; `signs`: plates of one look on its surfaces;
    `source`: the questions that the source brings; `annotated`: questions from its boxes, masks
    and key points; `written`: what a model asks about regions;
    `closeup`: which of four close-ups is the framed place; `change`: what differs between two
    copies; `count`: how many tags of a kind; `where`: box a close-up's place.
    Of several, each picture gets one."""
    per_image: int = Field(1, ge=1)
    """Questions for each picture, at most."""
    budgets: tuple[int, ...] = RESOLUTIONS
    """Resolutions R in pixels, or `paper` or `doubling`; no view has more than R² pixels."""
    rollouts: int = Field(1, ge=1)
    """Tries at each question and budget."""
    repeats: bool = True
    """A path that several budgets share, their first views being equal, is a row of each."""

    @field_validator("kind", mode="before")
    @classmethod
    def _kinds(cls, value: Any) -> Any:
        """`needles,signs` as well as a list."""
        return _listed(value)

    @field_validator("kind")
    @classmethod
    def _once(cls, value: tuple[TaskKind, ...]) -> tuple[TaskKind, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name one kind, or several different ones")
        return value

    @field_validator("budgets", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """`224,672` as well as a list; a preset's name."""
        if isinstance(value, str) and value in BUDGETS:
            return BUDGETS[value]
        return _listed(value)

    @field_validator("budgets")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 2 * FACTOR:
            raise ValueError(f"every budget is at least {2 * FACTOR} pixels")
        return tuple(sorted(set(value)))


class Policy(_Settings):
    """Who plans, reads and answers."""

    kind: Literal["scripted", "endpoint", "local", "auto", "oracle"] = "scripted"
    """`endpoint`: a server that speaks the OpenAI protocol; `local`: a transformers model in the
    worker; `auto`: a server found on the usual local ports; `oracle`: is told the truth, looks
    straight at it, and says so in the `policy` column."""
    model: str | None = None
    """The server's name for the model, or for `local` a folder or a Hub id; None: the only one."""
    family: str | None = None
    """Which coordinates the model speaks, such as `qwen2.5-vl`; None: told by its name."""
    profile: Literal["cof-v2", "cof-v1"] = "cof-v2"
    """Form of the turns, where tools are not called natively."""
    asked_as: Literal["roles", "trained"] = "roles"
    """`trained`: as the exports say it, with the zoom alone; no model reviews or rewrites it."""
    native_tools: bool = False
    """Use the server's own tool calling instead of the text protocol."""
    template: Literal["auto", "vicuna_v1"] = "auto"
    """How a LLaVA in this process is spoken to: its checkpoint's way, or as its scores were
    published."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=16)
    """Of each reply."""
    device: str = "cpu"
    """Where a `local` model runs."""
    critic: Literal["blind", "informed"] = "blind"
    """Who may send an answer back: `informed` has seen the truth and must not tell it."""

    @model_validator(mode="after")
    def _one_form(self) -> Policy:
        if self.native_tools and (self.profile == "cof-v1" or self.asked_as == "trained"):
            raise ValueError("profile cof-v1 and asked_as=trained have no native tools")
        return self


class Endpoint(_Settings):
    """How a server is reached; never what comes of it. Keys are never settings."""

    urls: tuple[str, ...] = ()
    """Base URLs such as `http://127.0.0.1:8000/v1`; requests on one picture prefer one of them."""
    urls_file: str | None = None
    """A file with one base URL a line, read again while the run goes on."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key."""
    key_file: str | None = None
    """File that holds the key; goes before `key_env`."""
    in_flight: int = Field(256, ge=1)
    """Requests under way at a time, at most, for each worker."""
    deadline_s: float = Field(120.0, gt=0)
    """For one try."""
    tries: int = Field(6, ge=1)

    @field_validator("urls", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        """One URL, or several with commas, as well as a list."""
        return tuple(u.strip() for u in value.split(",")) if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _without_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """A URL ends up in `run.json`: no password, no query."""
        for url in value:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("an endpoint is an http or https URL")
            if parts.username or parts.password or parts.query:
                raise ValueError("a key goes into the environment or a file, never into a URL")
        return value


class Price(_Settings):
    """What a model costs: by tokens, or by the hours of the GPUs that serve it."""

    input_usd: float | None = Field(None, ge=0)
    """For a million tokens."""
    output_usd: float | None = Field(None, ge=0)
    gpu_hour_usd: float | None = Field(None, ge=0)
    gpus: int = Field(1, ge=1)


class Segmenter(_Settings):
    """What outlines objects."""

    checkpoint: str = "pocket"
    """`pocket` (shipped), the name of a pulled checkpoint, or a path."""
    variant: Literal["pocket", "vit_b", "vit_l", "vit_h"] | None = None
    """Only needed where the file's name does not tell."""
    device: str = "cpu"
    search: Literal["grid", "saliency"] = "grid"
    """How the masks of a whole picture are searched for: a coarse grid of points, or a fine one of
    which only the likeliest points by saliency are asked, and none that a mask covers already; then
    a `locate` that finds nothing tells what stands out, too."""


class Episode(_Settings):
    """How far the agent may go on one question."""

    looks: int = Field(5, ge=0)
    turns: int = Field(60, ge=2)
    objections: int = Field(2, ge=0)
    slips: int = Field(3, ge=0)


class Checks(_Settings):
    """What is checked of a path beyond its answer."""

    probes: bool = False
    """Have each question answered from the first view alone, and from the last crop alone: fills
    `necessary` and `sufficient`, for two more calls a path where a model answers."""
    faithful: Literal["rules", "model"] = "rules"
    """Who compares a summarised path with its raw turns: rules, or also the model."""
    saliency: bool = False
    """Fill `saliency_inside`: how much of what draws the eye (U²-Net) each box holds."""
    masks: bool = False
    """Outline what each look was at: fills `mask_iou` for policies that do not segment."""


Effect = Literal["keep", "weight", "reject"]


class Filters(_Settings):
    """What becomes of a right answer whose path has a flaw."""

    unnecessary: Effect = "keep"
    """It is right without the looks, too."""
    insufficient: Effect = "keep"
    """It is not right from the last crop alone."""
    off_target: Effect = "keep"
    """No look shows the place of the answer."""
    needless: Effect = "keep"
    """It took more looks than another try at the same budget."""
    unfaithful: Effect = "reject"
    """The summary says what was not seen."""
    solved: Literal["any", "sometimes"] = "any"
    """`sometimes`: of several tries, some but not all are right: what RL learns from."""
    weight: float = Field(0.5, gt=0, le=1)
    """Factor on the column `weight` for each flaw that is weighted."""


class Balance(_Settings):
    """What shares of the kept rows are to be of which class; a family that is empty is free.

    Shares are relative, and count among the classes that occur.
    """

    kind: dict[str, float] = {}
    """By the picture's task kind."""
    resolution: dict[str, float] = {}
    looks: dict[str, float] = {}
    """By `0`, `1` and `2+`."""
    tolerance: float = Field(0.05, ge=0, lt=1)
    """How far a class may be from its share."""

    @model_validator(mode="after")
    def _positive(self) -> Balance:
        if any(share <= 0 for family in self.families.values() for share in family.values()):
            raise ValueError("every share is positive; leave out what is not wanted")
        if set(self.looks) - set(LOOKS):
            raise ValueError(f"looks are told apart as {', '.join(LOOKS)}")
        return self

    @property
    def families(self) -> dict[str, dict[str, float]]:
        """The families that are not free."""
        named = {"kind": self.kind, "resolution": self.resolution, "looks": self.looks}
        return {name: shares for name, shares in named.items() if shares}


LOOKS = ("0", "1", "2+")


class Prompts(_Settings):
    """What visual prompts show, and what is asked for their objects."""

    task: Literal["seg", "pose", "both"] = "seg"
    """`seg`: masks in flat colours; `pose`: people as OpenPose draws them."""
    role: Literal["pool", "query"] = "pool"
    """`pool`: pictures to prompt with, each with something to show; `query`: pictures to prompt
    for, which may be without: nothing is proposed for them, so what they show is the truth. Two
    runs, usually of two sources."""
    levels: int = Field(2, ge=1)
    """Frames of each prompt; the last one shows all objects."""
    overlap: Literal["painter", "add", "wrap"] = "painter"
    """Where masks overlap: the smaller one, the sum, or the sum mod 256 as it was published."""
    crowds: bool = True
    """Groups marked as one are objects, too."""
    least_salience: float = Field(1.0, ge=0)
    """Of a proposal, the picture's mean being 1: what is less salient is ground. 0 keeps all."""
    least_objects: int = Field(1, ge=1)
    """Of a picture in the pool."""
    net: str = "pocket-u2netp"
    """`pocket-u2netp` (shipped), the name of a pulled checkpoint, or a path."""
    device: str = "cpu"
    decode: Literal["exact", "fast"] = "exact"
    """`fast`: the network sees large JPEGs reduced while they are decoded."""
    propose: bool = True
    """Pictures without marks get their objects from the segmenter."""
    grid: int = Field(32, ge=1)
    """Points along each side that the segmenter is asked at."""
    thin: bool = True
    """Ask at half of them, and most where the picture is salient."""

    @property
    def tasks(self) -> tuple[Literal["seg", "pose"], ...]:
        """`seg`, `pose` or both."""
        return ("seg", "pose") if self.task == "both" else (self.task,)

    @property
    def proposes(self) -> bool:
        """Whether the segmenter can be needed: it finds no joints, and no truth."""
        return self.propose and self.role == "pool" and self.task != "pose"


class Run(_Settings):
    """How the work is done; never what comes of it."""

    dir: str = "runs"
    workers: int | None = Field(None, ge=1)
    """None: one for each CPU of the cluster, or of this machine."""
    part_rows: int = Field(1000, ge=1)
    part_mb: int = Field(256, ge=1)
    stall_s: float = Field(600.0, gt=0)
    window: int = Field(2, ge=1)


class Budget(_Settings):
    """Where spending stops; None is no limit."""

    usd: float | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    hours: float | None = Field(None, ge=0)


class Config(_Settings):
    """Everything that one command can set."""

    recipe: str = "needles"
    """Begins the run's id."""
    source: str = "scenes"
    columns: dict[str, str] = {}
    """For sources with columns: role (`image`, `question`, …) to column."""
    seed: int = 0
    task: Task = Task()
    policy: Policy = Policy()
    endpoint: Endpoint = Endpoint()
    prices: dict[str, Price] = {}
    """By model name."""
    segmenter: Segmenter = Segmenter()
    episode: Episode = Episode()
    checks: Checks = Checks()
    filters: Filters = Filters()
    balance: Balance = Balance()
    prompts: Prompts = Prompts()
    rows: int | None = Field(None, ge=1)
    """Kept rows to stop at."""
    shards: int = Field(64, ge=1)
    """Units the work is cut into."""
    run: Run = Run()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _possible(self) -> Config:
        """Settings that only work together."""
        if self.balance.families and self.rows is None:
            raise ValueError("a balance is of so many rows: set rows, or give --rows")
        if self.filters.solved == "sometimes" and self.task.rollouts < 2:
            raise ValueError("filters.solved=sometimes needs task.rollouts of at least 2")
        if "written" in self.task.kind and self.policy.kind in ("scripted", "oracle"):
            raise ValueError("task.kind=written needs a model: policy.kind=endpoint, local or auto")
        needs = self.filters.unnecessary, self.filters.insufficient
        if set(needs) != {"keep"} and not self.checks.probes:
            raise ValueError("filters of necessity and sufficiency need checks.probes")
        return self

    def describe(self) -> dict[str, Any]:
        """All settings as plain values."""
        return self.model_dump(mode="json")

    @property
    def needs_saliency(self) -> bool:
        """Whether trajectories need the saliency network; no other run loads it."""
        return self.checks.saliency or self.segmenter.search == "saliency"

    def semantic(self) -> dict[str, Any]:
        """The settings that change trajectories; where they lie and how fast is left out."""
        left_out = {"run", "budget", "source", "endpoint", "prices", "rows", "shards", "prompts"}
        return self.model_dump(mode="json", exclude=left_out)


def config_from(values: Mapping[str, Any]) -> Config:
    """Settings from nested plain values; raises `ConfigError` naming the first fault."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _as_config_error(error) from error


def _as_config_error(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    where = [part for part in first["loc"] if isinstance(part, str)]
    name = ".".join(where)
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return ConfigError(f"Setting '{name}': {said}." if name else f"These settings: {said}.")
    model: Any = Config
    for part in where[:-1]:
        model = model.model_fields[part].annotation
    return ConfigError(f"There is no setting '{name}'.", nearest(where[-1], model.model_fields))
