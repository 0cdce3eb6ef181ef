"""Whether a trainer will take a folder: every row through the model's own processor, before paying.

Nothing is written, a broken row ends nothing, and a few rows are held at a time; what is kept to
tell what was met before grows by about 400 bytes a row.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.agent.families import FAMILIES
from pipeline.errors import ConfigError, nearest
from pipeline.synthesis.export_llamafactory import TEMPLATES
from pipeline.synthesis.export_rows import Kind
from pipeline.synthesis.exports import KINDS, Trainer
from pipeline.synthesis.preflight_checks import Finding, Target, findings
from pipeline.synthesis.preflight_files import (
    BROKEN,
    Folder,
    Problem,
    Row,
    Table,
    look_into,
    request_of,
    rows_of,
    why_not_loaded,
)
from pipeline.synthesis.preflight_rows import (
    Chat,
    Unreadable,
    llamafactory_chat,
    trl_chat,
    verl_chat,
)
from pipeline.synthesis.preflight_trainers import FAMILY_OF, target_of
from pipeline.synthesis.recipe_folder import RECIPE_ONLY
from pipeline.turns import Mark

MAX_TOKENS = 81_920
"""Of the published recipe."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What is asked for."""

    trainer: Trainer
    model: str
    """A folder, or `owner/name`; its weights are not read."""
    kind: Kind | None = None
    """The export's own, or the trainer's first, where it is left open."""
    max_tokens: int = MAX_TOKENS
    """Most tokens of a row; the model's positions bound it too."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it."""

    rows: int
    pictures: int
    broken: int
    """Rows that have a problem."""
    reasons: Mapping[str, int]
    """Problems by reason; what each means is in `preflight_checks.REASONS`."""
    longest: int
    """Tokens of the longest row of those that got as far as tokens."""
    repeated: int
    """Rows that say and show what another does under another name: no problem in itself."""
    notes: tuple[str, ...]
    """What else to know."""

    @property
    def holds(self) -> bool:
        """Whether nothing would break."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class _Looked:
    """What came of a row, or of a file as a whole."""

    problems: tuple[Problem, ...]
    rows: int = 0
    pictures: int = 0
    tokens: int = 0


@dataclass
class _Memory:
    """What was met before, by 64-bit digests."""

    keys: set[int] = field(default_factory=set)
    chats: set[int] = field(default_factory=set)
    splits: dict[int, str] = field(default_factory=dict)
    """Where each source picture was first met."""
    repeated: int = 0


def preflight(
    folder: Path, asked: Preflight, told: Callable[[Problem], None] = lambda _: None
) -> Checked:
    """Check every row of an exported folder; each problem is `told` as it is found.

    Raises `ConfigError` for a folder or a model that is none, and for another trainer's export.
    """
    from pipeline.models.qwen_chat import load

    request = request_of(folder)
    kind = _kind(request, asked)
    found, processor = look_into(folder, asked.trainer), load(asked.model)
    target = target_of(folder, found.settings, request, asked.trainer, kind, processor)
    target = replace(target, most_tokens=min(target.most_tokens, asked.max_tokens))
    memory, reasons = _Memory(), Counter[str]()
    rows = pictures = broken = longest = 0
    whole = _Looked((*found.problems, *_about_the_whole(request, found, target)))
    for looked in chain([whole], _looks(found, target, kind, memory)):
        rows, pictures = rows + looked.rows, pictures + looked.pictures
        broken += bool(looked.rows and looked.problems)
        longest = max(longest, looked.tokens)
        for problem in looked.problems:
            reasons[problem.reason] += 1
            told(problem)
    counts = dict(sorted(reasons.items()))
    notes = _notes(target, longest)
    return Checked(rows, pictures, broken, counts, longest, memory.repeated, notes)


def _kind(request: Mapping[str, Any], asked: Preflight) -> Kind:
    """What the rows are for, once the folder is proven to be the trainer's."""
    if asked.trainer not in KINDS:
        raise ConfigError(f"There is no trainer '{asked.trainer}'.", nearest(asked.trainer, KINDS))
    made_for = request.get("trainer", asked.trainer)
    if made_for != asked.trainer:
        raise ConfigError(f"This is an export for {made_for}.", f"Use --trainer {made_for}.")
    kind: Kind = asked.kind or request.get("kind") or KINDS[asked.trainer][0]
    if kind not in KINDS[asked.trainer]:
        raise ConfigError(f"There is no {kind} export for {asked.trainer}.")
    if kind != request.get("kind", kind):
        raise ConfigError(f"This is an export of kind {request['kind']}.")
    if request.get(RECIPE_ONLY):
        raise ConfigError("This folder holds recipes for its pictures.", "Use cofpipe rehydrate.")
    if asked.max_tokens < 1:
        raise ConfigError(f"No row has at most {asked.max_tokens} tokens.")
    return kind


def _about_the_whole(
    request: Mapping[str, Any], found: Folder, target: Target
) -> Iterator[Problem]:
    """What is wrong with the folder before a row is read."""
    model = FAMILY_OF[target.processor.kind]
    if FAMILIES[model].kind != target.numbers:
        detail = f"Boxes are as {request['family']} writes them, the model is a {model}."
        yield Problem("family", detail)
    for table in found.tables:
        if why := why_not_loaded(table):
            yield Problem("load", why, table.file)
    if target.trainer != "llamafactory":
        return
    if not found.settings.there:
        detail = "There is no settings.yaml: LLaMA-Factory's own pixel caps and length hold."
        yield Problem("settings", detail)
    elif found.settings.template != TEMPLATES[model]:
        detail = f"The template is '{found.settings.template}', the model's is {TEMPLATES[model]}."
        yield Problem("settings", detail, "settings.yaml")
    if target.profile == "cof-v1":
        detail = "LLaMA-Factory takes its loss on the pictures inside the assistant's turn."
        yield Problem("mask", detail)


def _looks(found: Folder, target: Target, kind: Kind, memory: _Memory) -> Iterator[_Looked]:
    """What comes of each row; a file that breaks off ends with that."""
    read: Callable[[Table, int, Row], Chat] = {
        "trl": trl_chat(kind),
        "verl": verl_chat,
        "llamafactory": llamafactory_chat,
    }[target.trainer]
    for table in found.tables:
        try:
            for number, row in rows_of(table):
                yield _row(read, table, number, row, found, target, memory)
        except BROKEN as error:
            why = str(error).partition("\n")[0]
            yield _Looked((Problem("file", f"It cannot be read on: {why}", table.file),))


def _row(
    read: Callable[[Table, int, Row], Chat],
    table: Table,
    number: int,
    row: Row | str,
    found: Folder,
    target: Target,
    memory: _Memory,
) -> _Looked:
    """One row, whatever it is."""
    if isinstance(row, str):
        return _Looked((Problem("row", row, table.file, number),), 1)
    try:
        chat = read(table, number, row)
    except (Unreadable, TypeError, ValueError, AttributeError, LookupError) as error:
        return _Looked((Problem("columns", str(error), table.file, number),), 1)
    wrong, encoded = findings(chat, target)
    form = table.columns.get("messages", "")
    wrong += [*_changed(chat, found), *_met_before(chat, form, memory)]
    problems = tuple(
        Problem(reason, detail, table.file, number, chat.name) for reason, detail in wrong
    )
    return _Looked(problems, 1, len(chat.pictures), encoded.tokens if encoded else 0)


def _changed(chat: Chat, found: Folder) -> Iterator[Finding]:
    """Loose pictures whose bytes are others than when they were written."""
    for name, data in zip(chat.names, chat.pictures, strict=True):
        if data is not None and found.digests.differ(name, data):
            yield "changed", f"{name} is not the picture of the export"


def _met_before(chat: Chat, form: str, memory: _Memory) -> Iterator[Finding]:
    """Rows that are there twice, in one form, and source pictures in two splits."""
    digest = _short(form.encode() + chat.digest)
    key = _short(repr((form, chat.key)).encode()) if chat.key else digest
    if key in memory.keys:
        yield "duplicate", f"{chat.name or 'this row'} was there before"
    elif digest in memory.chats:
        memory.repeated += 1
    memory.keys.add(key)
    memory.chats.add(digest)
    named = [f"name {chat.source}".encode()] if chat.source else []
    shown = [b"bytes " + chat.pictures[0]] if chat.pictures and chat.pictures[0] else []
    splits = {memory.splits.setdefault(_short(source), chat.split) for source in named + shown}
    if splits - {chat.split}:
        yield "leak", f"its picture is in {', '.join(sorted(splits | {chat.split}))}"


def _notes(target: Target, longest: int) -> tuple[str, ...]:
    """What else to know."""
    notes = []
    if target.trainer == "verl":
        notes.append(f"verl drops prompts over data.max_prompt_length: set {longest} or more.")
    if target.trainer == "llamafactory":
        notes.append("Rendered by LLaMA-Factory's own template as its rules (0.9.5) tell, not run.")
    if target.profile == "cof-v1":
        if not target.processor.knows(Mark.ZOOMIN.value):
            notes.append(f"{Mark.ZOOMIN.value} must be added to the tokenizer before training.")
        if target.taught:
            notes.append("Visual tokens inside an assistant's turn must be left out of the loss.")
    return tuple(notes)


def _short(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
