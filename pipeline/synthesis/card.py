"""The card of a dataset: front matter that the Hub reads, and a page for people.

What can be counted in the published Parquet is one part (`facts_of`), so that it can be counted
again and compared; the rest is what the run's manifest says. No licence is made up, no clock is
read: the same run has the same card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.synthesis import card_body
from pipeline.synthesis.card_examples import Shown
from pipeline.synthesis.dataset_statistics import Numbers
from pipeline.synthesis.publish import Publication
from pipeline.synthesis.published_files import Published, digest_of, pattern

FILE = "README.md"
FORMAT = 1
"""Of the block `cofpipe` in the front matter."""
LICENCES = (
    *("cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "apache-2.0", "mit", "bsd-3-clause"),
    *("odbl", "odc-by", "pddl", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0"),
    *("gpl-3.0", "agpl-3.0", "gfdl", "etalab-2.0", "c-uda", "openrail", "unlicense", "unknown"),
)
"""Identifiers that the Hub knows; any other text is written down as `other` with that name."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
TASKS = {
    "trajectories": ["visual-question-answering", "image-text-to-text"],
    "prompts": ["image-segmentation", "image-to-image"],
}
TAGS = {
    "trajectories": ["synthetic", "cofpipe", "chain-of-focus", "visual-search", "zoom"],
    "prompts": ["synthetic", "cofpipe", "chain-of-focus-prompting", "visual-prompts", "saliency"],
}

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wording:
    """What a card says that follows neither from the run nor from the files."""

    licence: str | None = None
    repo_id: str = "ORG/NAME"
    allow: tuple[str, ...] = ()
    """Pictures that overlap with a benchmark and may stay, by name."""
    allow_sources: tuple[str, ...] = ()
    """Sources whose pictures may go out, whatever their licence says."""


def facts_of(files: Sequence[Published], numbers: dict[str, Numbers]) -> Facts:
    """What follows from the published Parquet alone, as it stands in the front matter."""
    configs = list(dict.fromkeys(file.config for file in files))
    of = {config: [f for f in files if f.config == config] for config in configs}
    rows = sum(file.rows for file in of[configs[0]])
    label = next((label for most, label in SIZES if rows < most), "n>1M")
    return {
        "size_categories": [label],
        "configs": [
            {"config_name": config, "data_files": _data_files(of[config])}
            | ({"default": True} if config == configs[0] else {})
            for config in configs
        ],
        "dataset_info": [_info(config, of[config]) for config in configs],
        "cofpipe": {
            "numbers": {config: numbers[config] for config in configs},
            "digest": digest_of(files),
        },
    }


def card_of(
    publication: Publication, facts: Facts, wording: Wording, shown: Sequence[Shown] = ()
) -> str:
    """The whole card as Markdown with front matter."""
    import yaml  # type: ignore[import-untyped]

    run, kind = publication.run, publication.run["kind"]
    front: dict[str, Any] = _licence(wording.licence)
    front |= {
        "pretty_name": _name(publication),
        "language": ["en"],
        "task_categories": TASKS[kind],
        "size_categories": facts["size_categories"],
        "annotations_creators": ["machine-generated"],
        "source_datasets": _source_datasets(publication),
        "tags": TAGS[kind],
        "configs": facts["configs"],
        "dataset_info": facts["dataset_info"],
    }
    made = {"format": FORMAT, "run": {"id": run["run_id"], "digest": publication.digest}}
    if publication.exports:
        made["exports"] = publication.exports
    front["cofpipe"] = made | facts["cofpipe"]
    body = card_body.body(
        publication,
        facts,
        title=_name(publication),
        licence=wording.licence,
        repo_id=wording.repo_id,
        allowed=(*wording.allow, *wording.allow_sources),
        shown=[(one.path, one.told) for one in shown],
    )
    text: str = yaml.safe_dump(front, sort_keys=False, width=100, allow_unicode=True)
    return f"---\n{text}---\n\n{body}"


def _licence(licence: str | None) -> dict[str, Any]:
    if not licence:
        return {}
    if licence.lower() in LICENCES:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence}


def _name(publication: Publication) -> str:
    run = publication.run
    what = "Visual prompts" if run["kind"] == "prompts" else "Focus trajectories"
    return f"{what} ({run.get('recipe') or run['run_id']})"


def _source_datasets(publication: Publication) -> list[str]:
    """`original` for pictures drawn here; Hub datasets by name; all others as `extended|other`."""
    named = []
    for source, _, _ in publication.origins:
        if source == "scenes":
            named.append("original")
        elif source.startswith("hf://datasets/"):
            named.append("/".join(source.removeprefix("hf://datasets/").split("/")[:2]))
        else:
            named.append("extended|other")
    return sorted(set(named)) or ["original"]


def _data_files(files: Sequence[Published]) -> list[dict[str, str]]:
    splits = list(dict.fromkeys(file.split for file in files))
    return [
        {"split": split, "path": pattern([f.path for f in files if f.split == split])}
        for split in splits
    ]


def _info(config: str, files: Sequence[Published]) -> dict[str, Any]:
    """An entry of `dataset_info`; sizes are those of row groups before and after compression."""
    splits = [
        {
            "name": split,
            "num_bytes": sum(file.held for file in files if file.split == split),
            "num_examples": sum(file.rows for file in files if file.split == split),
        }
        for split in dict.fromkeys(file.split for file in files)
    ]
    return {
        "config_name": config,
        "features": json.loads(files[0].features),
        "splits": splits,
        "download_size": sum(file.bytes for file in files),
        "dataset_size": sum(file.held for file in files),
    }
