"""Where settings come from: files and shipped recipes, `--set` and flags, merged in that order."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config, config_from
from pipeline.errors import ConfigError

_SHIPPED = Path(__file__).parent / "recipes"
RECIPES = tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))
"""Names of the settings files that ship with the package."""

_FLAGS = {
    "source": "source",
    "seed": "seed",
    "runs_dir": "run.dir",
    "budget_usd": "budget.usd",
    "budget_tokens": "budget.tokens",
    "budget_hours": "budget.hours",
    "rows": "rows",
    "shards": "shards",
}


def load_config(files: Sequence[Path] = (), sets: Sequence[str] = (), **flags: Any) -> Config:
    """Settings from files, then `a.b=c` strings, then flags that are not None.

    A file is TOML, or the name of a recipe that ships with the package. Raises `ConfigError` for
    what cannot be read, is not a setting, or is not allowed.
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


def _read(path: Path) -> dict[str, Any]:
    """The values of a file, over those of the file or recipe that it `extends`."""
    if path.name in RECIPES and not path.exists():
        path = _SHIPPED / f"{path.name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        fix = f"Give a TOML file, or one of: {', '.join(RECIPES)}."
        raise ConfigError(f"There is no settings file '{path}'.", fix) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"'{path}' is not readable TOML: {error}.") from error
    extended = values.pop("extends", None)
    if extended is None:
        return values
    whole = _read(Path(extended) if extended in RECIPES else path.parent / extended)
    _merge(whole, values)
    return whole


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
