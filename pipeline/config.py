"""Settings of a run: frozen, closed, and told apart by whether they change what is made.

A setting is named like the record it shapes. Files, `--set` and flags are merged in that order;
a mistyped name fails at once and names the nearest real one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError, nearest
from pipeline.geometry import FACTOR, RESOLUTIONS


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Settings):
    """What is asked about a picture."""

    kind: Literal[
        "needles", "signs", "source", "annotated", "closeup", "change", "count", "where"
    ] = "needles"
    """`needles`: tags put onto any picture; `signs`: plates of one look on its surfaces;
    `source`: the questions that the source brings; `annotated`: questions from its boxes, masks
    and key points;
    `closeup`: which of four close-ups is the framed place; `change`: what differs between two
    copies; `count`: how many tags of a kind; `where`: box a close-up's place."""
    per_image: int = Field(1, ge=1)
    """Questions for each picture, at most."""
    budgets: tuple[int, ...] = RESOLUTIONS
    """Resolutions R in pixels; no view has more than R² pixels."""

    @field_validator("budgets", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """`224,672` as well as a list."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return (value,) if isinstance(value, int) else value

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
    native_tools: bool = False
    """Use the server's own tool calling instead of the text protocol."""
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
        if self.native_tools and self.profile == "cof-v1":
            raise ValueError("profile cof-v1 zooms inside its turn and has no native tools")
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


class Episode(_Settings):
    """How far the agent may go on one question."""

    looks: int = Field(5, ge=0)
    turns: int = Field(60, ge=2)
    objections: int = Field(2, ge=0)
    slips: int = Field(3, ge=0)


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
    run: Run = Run()
    budget: Budget = Budget()

    def describe(self) -> dict[str, Any]:
        """All settings as plain values."""
        return self.model_dump(mode="json")

    def semantic(self) -> dict[str, Any]:
        """The settings that change what is made; where it lies and how fast is left out."""
        left_out = {"run", "budget", "source", "endpoint", "prices"}
        return self.model_dump(mode="json", exclude=left_out)


_FLAGS = {
    "source": "source",
    "seed": "seed",
    "runs_dir": "run.dir",
    "budget_usd": "budget.usd",
    "budget_tokens": "budget.tokens",
    "budget_hours": "budget.hours",
}


def load_config(files: Sequence[Path] = (), sets: Sequence[str] = (), **flags: Any) -> Config:
    """Settings from TOML files, then `a.b=c` strings, then flags that are not None.

    Raises `ConfigError` for what cannot be read, is not a setting, or is not allowed.
    """
    values: dict[str, Any] = {}
    if os.environ.get("COFPIPE_RUNS"):
        _put(values, "run.dir", os.environ["COFPIPE_RUNS"])
    for path in files:
        _merge(values, _read(path))
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"'--set {text}' has no value.", "Write --set name=value.")
        _put(values, name.strip(), _literal(value))
    for flag, value in flags.items():
        if value is not None:
            _put(values, _FLAGS[flag], value)
    return config_from(values)


def config_from(values: Mapping[str, Any]) -> Config:
    """Settings from nested plain values; raises `ConfigError` naming the first fault."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _as_config_error(error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no settings file '{path}'.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"'{path}' is not readable TOML: {error}.") from error


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"'{name}' is below a setting that is a value.")
    values[last] = value


def _literal(text: str) -> Any:
    """A TOML value where the text is one, else the text without blanks around it."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _as_config_error(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    name = ".".join(where)
    if first["type"] != "extra_forbidden":
        return ConfigError(f"Setting '{name}': {first['msg']}.")
    model: Any = Config
    for part in where[:-1]:
        model = model.model_fields[part].annotation
    return ConfigError(f"There is no setting '{name}'.", nearest(where[-1], model.model_fields))
