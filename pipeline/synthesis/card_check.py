"""A published dataset held against its own card: every figure counted again in the Parquet.

Knows nothing of the run that the dataset came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import CheckFailed, ConfigError
from pipeline.synthesis.card import FILE, Facts, facts_of
from pipeline.synthesis.card_body import COUNTED, LEAKS, counted, leaks
from pipeline.synthesis.dataset_statistics import Numbers, numbers
from pipeline.synthesis.publish import OVERLAPS
from pipeline.synthesis.published_dataset import Dataset
from pipeline.synthesis.published_files import Published


def check(dataset: Dataset) -> list[str]:
    """Where a dataset's card does not say what its files hold: a line for each difference.

    Raises `ConfigError` where there is no card to check, `CheckFailed` for damaged files.
    """
    told = dataset.read(FILE)
    if told is None:
        raise ConfigError(f"There is no {FILE} in the dataset.", "Push writes one.")
    card = told.decode("utf-8", "replace")
    try:
        tables = dataset.tables()
        with dataset.connection() as connection:
            configs = list(dict.fromkeys(table.config for table in tables))
            counts = numbers(connection, configs)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise CheckFailed(f"The dataset cannot be read: {error}.") from error
    return compared(card, tables, counts, dataset.read(OVERLAPS))


def compared(
    card: str,
    tables: Sequence[Published],
    counts: dict[str, Numbers],
    overlaps: bytes | None,
) -> list[str]:
    """Where a card does not say what was counted: a line for each difference."""
    front, body = _parted(card)
    if not tables:
        return ["there is no table in the dataset"]
    found = facts_of(_in_order(tables, front), counts)
    wrong = list(_differing(_checked(front), _checked(found)))
    wrong += _block("figures", body, COUNTED, counted(found))
    wrong += _block("overlaps", body, LEAKS, leaks(overlaps))
    return wrong


def _in_order(tables: Sequence[Published], front: Mapping[str, Any]) -> list[Published]:
    """The tables in the order in which the card has their configurations and splits."""
    listed = [
        (info.get("config_name"), split.get("name"))
        for info in front.get("dataset_info") or ()
        for split in info.get("splits") or ()
    ]
    places = {place: number for number, place in enumerate(listed)}
    return sorted(tables, key=lambda t: (places.get((t.config, t.split), len(places)), t.path))


def _parted(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and body; raises `ConfigError` where there is no front matter."""
    import yaml  # type: ignore[import-untyped]

    parts = card.split("---\n", 2)
    try:
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        front = None
    if not isinstance(front, dict) or "cofpipe" not in front:
        raise ConfigError("This card was not written by cofpipe: there is nothing to check it by.")
    return front, parts[2]


def _checked(front: Mapping[str, Any]) -> Facts:
    """The part of a front matter that can be counted."""
    made = front["cofpipe"]
    counts = {name: made.get(name) for name in ("numbers", "digest")}
    return {
        "size_categories": front.get("size_categories"),
        "configs": front.get("configs"),
        "dataset_info": front.get("dataset_info"),
        "cofpipe": counts,
    }


def _differing(told: Any, found: Any, name: str = "") -> Iterator[str]:
    """A line for each leaf that is not the same."""
    told, found = _keyed(told), _keyed(found)
    if isinstance(told, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*told, *found]):
            yield from _differing(told.get(key), found.get(key), f"{name}.{key}" if name else key)
    elif told != found:
        yield f"{name}: the card says {_short(told)}, the files hold {_short(found)}"


def _keyed(value: Any) -> Any:
    """A list of entries that have names as a mapping from those."""
    for key in ("config_name", "name", "split"):
        if (
            isinstance(value, list)
            and value
            and all(isinstance(v, dict) and key in v for v in value)
        ):
            return {str(one[key]): one for one in value}
    return value


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


def _block(name: str, body: str, marks: tuple[str, str], right: str) -> Iterator[str]:
    """A line for each line of a block that is not as it should be."""
    _, begun, rest = body.partition(marks[0])
    inner, ended, _ = rest.partition(marks[1])
    if not begun or not ended:
        yield f"the page has no block of {name}"
        return
    should = right.removeprefix(marks[0]).removesuffix(marks[1]).splitlines()
    lines = inner.splitlines()
    for number in range(max(len(should), len(lines))):
        said = lines[number] if number < len(lines) else ""
        right_line = should[number] if number < len(should) else ""
        if said != right_line:
            yield f"the page, {name}: it says {_short(said)}, the files say {_short(right_line)}"
