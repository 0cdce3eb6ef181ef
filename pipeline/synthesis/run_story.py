"""How a run was made, told from its `run.json`: model, prompts, sampling, weights, the command.

No path of the machine it ran on is told, and no address of a server.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from pipeline.config import Config
from pipeline.synthesis.publish import Publication

_LEFT_OUT = {"recipe", "source", "seed", "shards", "rows", "run", "budget", "endpoint", "prices"}
_ASKED = ("trainer", "kind", "profile", "family", "split")
"""What is told of an export."""
_OWN_FORMS = ("scenes", "hf")
"""Sources whose specification names no place of a machine."""


def made_with(publication: Publication) -> str:
    """A table of what the rows follow from."""
    run = publication.run
    lines = ["| | |", "|---|---|", f"| run | `{run['run_id']}` |"]
    lines.append(f"| digest of its data | `{publication.digest}` |")
    for name, value in _facts(run):
        lines.append(f"| {name} | {value} |")
    for config, asked in publication.exports.items():
        told = [f"{name} {asked[name]}" for name in _ASKED if asked.get(name) is not None]
        lines.append(f"| export `{config}` | {', '.join(told)} |")
    return "\n".join(lines)


def command_of(run: Mapping[str, Any]) -> str:
    """The command that makes the run again, where its source is called the same."""
    config = run.get("config") or {}
    if run.get("recipe") == "import":
        name, layout = _bare(config.get("dataset") or "DIR"), config.get("layout") or "auto"
        limit = f" --limit {run['limit']}" if run.get("limit") else ""
        return f"cofpipe import {shlex.quote(name)} --layout {layout}{limit}"
    words = ["cofpipe", "synthesize", source_of(config.get("source") or "scenes")]
    if run.get("kind") == "prompts":
        words += ["--kind", "prompts"]
    words += ["--shards", str(run.get("shards_total"))]
    for name in ("rows", "seed"):
        if config.get(name):
            words += [f"--{name}", str(config[name])]
    if run.get("limit"):
        words += ["--limit", str(run["limit"])]
    for name, value in _changed(config, Config().describe()):
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def source_of(spec: str) -> str:
    """A source's specification without the folders that lead to it."""
    form, colon, rest = spec.partition(":")
    if form in _OWN_FORMS or "://" in spec:
        return spec
    parts = (rest if colon else spec).split(":")
    bare = ["+".join(PurePath(name).name or name for name in part.split("+")) for part in parts]
    return ":".join([form, *bare] if colon else bare)


def _facts(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, value) of what is known, as Markdown."""
    config, known = run.get("config") or {}, run.get("determined_by") or {}
    policy = config.get("policy") or {}
    if run.get("kind") != "prompts" and policy:
        model = _bare(policy.get("model") or "")
        revision = policy.get("revision") or "not recorded"
        yield "policy", f"{policy.get('kind')}"
        yield "model", f"{model}, revision {revision}" if model else "none"
        asked = ("profile", "native_tools", "temperature", "top_p", "max_tokens")
        yield "sampling", ", ".join(f"{n} {policy[n]}" for n in asked if n in policy)
    task = config.get("task") or {}
    for name in ("kind", "budgets", "rollouts", "per_image"):
        if name in task:
            yield f"task: {name.replace('_', ' ')}", _plain(task[name])
    if isinstance(known.get("prompts"), str):
        yield "prompts (SHA-256)", f"`{known['prompts']}`"
    for name in ("weights", "segmenter", "net", "pocket-finder", "pocket-reader"):
        if isinstance(known.get(name), str):
            what = {"weights": "segmenter", "net": "saliency network"}.get(name, name)
            yield f"weights of the {what} (SHA-256)", f"`{known[name]}`"
    yield "seed", str(run.get("seed", 0))
    yield "source", f"{known.get('source') or 'not recorded'}, {run.get('entries')} entries"
    yield "begun", str(run.get("created_at"))
    versions = run.get("versions") or {}
    yield "versions", ", ".join(f"{name} {number}" for name, number in versions.items())


def _changed(
    config: Mapping[str, Any], usual: Mapping[str, Any], before: str = ""
) -> Iterator[tuple[str, str]]:
    """(dotted name, value) of settings that are not the usual ones."""
    for name, value in config.items():
        if not before and name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping) and isinstance(usual.get(name), Mapping) and usual[name]:
            yield from _changed(value, usual[name], f"{before}{name}.")
        elif value != usual.get(name) and value is not None:
            yield f"{before}{name}", _plain(value)


def _plain(value: Any) -> str:
    """A setting as it is written on a command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, bool):
        return str(value).lower()
    return _bare(value) if isinstance(value, str) else str(value)


def _bare(text: str) -> str:
    """A text, or where it is a path of this machine its last part."""
    return PurePath(text).name if text.startswith(("/", "~", "./", "../")) else text
