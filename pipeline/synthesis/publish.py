"""What of a run, and of exports made from it, is published, and whether it may be.

Fails closed: without a licence, without a look for leaked benchmark pictures, or with pictures that
their source does not let one pass on, nothing is published unless that is allowed by name. Knows
which files and facts there are; not what a card says, nor what the Hub is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from manifests import database
from manifests.tables import DATA
from pipeline.errors import ConfigError
from pipeline.runner.rundir import File, data_digest, read_run, records
from pipeline.runner.storage import storage_at
from pipeline.synthesis.card_examples import Shown, examples
from pipeline.synthesis.dataset_statistics import connection_over, query
from pipeline.synthesis.licences import closed_by
from pipeline.synthesis.published_files import FOLDER, RECIPES, Table, described
from pipeline.synthesis.recipe_folder import RECIPE_ONLY

OVERLAPS = "decontamination.json"
"""What was found of benchmarks; published as it is."""
EXPORT = "manifest.json"
CONFIGS = {("trl", "sft"): "sft", ("trl", "rl"): "grpo", ("verl", "rl"): "verl"}
"""What the configuration of an export is called."""

_SPLIT = re.compile(r"([a-z]+)-\d{5}\.parquet")


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be published."""

    run: dict[str, Any]
    """The run's `run.json`."""
    digest: str
    """Of the run's data files."""
    tables: tuple[Table, ...]
    exports: dict[str, dict[str, Any]]
    """What was asked of each export, by configuration."""
    looked: Path | None
    """Where it is written down that somebody looked for benchmarks in this very data."""
    origins: tuple[tuple[str, str, int], ...]
    """(source, licence, rows) of the run's kept rows."""
    main: tuple[Path, ...]
    """The run's files of its kind, published or not."""
    pictures: bool
    """Whether any table holds pictures."""
    beside: Mapping[str, Path]
    """Small files that are published as they are, by path in the repository."""

    @property
    def overlaps(self) -> bytes | None:
        """`decontamination.json`; None where nobody looked."""
        return (self.looked / OVERLAPS).read_bytes() if self.looked else None


def gathered(
    run_dir: Path,
    scratch: Path,
    exports: Sequence[Path] = (),
    *,
    whole: bool = True,
    rejected: bool = False,
) -> Publication:
    """A run's tables, and exports made from it; small ones are written into `scratch`.

    `whole=False` leaves the run's own data out and keeps its books; `rejected` adds the paths that
    failed. Raises `ConfigError` for what cannot be published.
    """
    storage = storage_at(str(run_dir))
    run = read_run(storage)
    if run.get("kind") not in ("trajectories", "prompts"):
        raise ConfigError(f"'{run_dir.name}' makes no dataset.", "Choose a run of synthesize.")
    named = [file for record in records(storage) for file in record.files]
    own = _own_tables(run_dir, named)
    asked, beside = dict[str, dict[str, Any]](), dict[str, Path]()
    tables = [t for t in own if whole and (rejected or t.config != "rejected")]
    tables += _export_tables(run["run_id"], exports, asked, beside)
    if not tables:
        raise ConfigError(f"'{run_dir.name}' has no rows to publish.")
    tables += _books(run_dir, scratch)
    main = next((table.files for table in own if table.config == run["kind"]), ())
    looked = _looked(run_dir, exports, whole)
    if looked:
        beside[OVERLAPS] = looked / OVERLAPS
    return Publication(
        run=run,
        digest=data_digest(named),
        tables=tuple(tables),
        exports=asked,
        looked=looked,
        origins=_origins(run["kind"], main),
        main=main,
        pictures=any(map(_holds_pictures, tables)),
        beside=beside,
    )


def export_of(folder: Path) -> str:
    """The run that an exported folder was made from; raises `ConfigError` where it is no export."""
    return str(_manifest(folder)["run_id"])


def refusals(
    publication: Publication,
    licence: str | None,
    allow: Sequence[str] = (),
    allow_sources: Sequence[str] = (),
) -> list[ConfigError]:
    """Why it may not be published; nothing where it may.

    `allow` names pictures that overlap and may stay, `allow_sources` sources that may go out.
    """
    from pipeline.synthesis.decontaminate import read_overlaps, require_clean

    told = []
    if not licence:
        fix = "Give --license: an identifier of the Hub such as cc-by-4.0, or your own words."
        told.append(ConfigError("No licence is chosen; there is none by default.", fix))
    try:
        require_clean(read_overlaps(publication.looked) if publication.looked else None, allow)
    except ConfigError as error:
        told.append(error)
    held = sorted({s for s, terms, _ in publication.origins if closed_by(s, terms)})
    for source in held if publication.pictures else ():
        if source not in allow_sources:
            fix = (
                "Push an export made with --recipe-only, or say that you may: "
                f"--allow-source '{source}'."
            )
            message = f"Pictures of '{source}' may not be passed on by its licence."
            told.append(ConfigError(message, fix))
    return told


def shown_of(publication: Publication) -> list[Shown]:
    """Pictures for the card; none where no picture is published."""
    if not publication.pictures:
        return []
    return examples(publication.run["kind"], publication.main)


def _looked(run_dir: Path, exports: Sequence[Path], whole: bool) -> Path | None:
    """Where a look for benchmarks is written down that covers all that is published."""
    from pipeline.synthesis.decontaminate import read_overlaps

    alone = [] if whole or len(exports) != 1 else list(exports)
    return next((f for f in (run_dir, *alone) if read_overlaps(f) is not None), None)


def _own_tables(run_dir: Path, named: Sequence[File]) -> list[Table]:
    """The run's data, its main kind first."""
    data = [file for file in named if file.path.startswith("data/") and file.rows]
    return [
        Table(kind, "train", tuple(run_dir / file.path for file in data if file.kind == kind))
        for kind in DATA
        if any(file.kind == kind for file in data)
    ]


def _export_tables(
    run_id: str,
    exports: Sequence[Path],
    asked: dict[str, dict[str, Any]],
    beside: dict[str, Path],
) -> list[Table]:
    """The tables of exports; what was asked of each, and files that go with them, are entered."""
    tables = list[Table]()
    for folder in exports:
        config, request = _exported(folder, run_id)
        if config in asked:
            raise ConfigError(f"There are two exports '{config}'.", "Push one of them.")
        asked[config] = request
        if request.get(RECIPE_ONLY):
            tables += _recipe_tables(folder, config, beside)
        else:
            tables += _split_tables(folder, config)
    return tables


def _exported(folder: Path, run_id: str) -> tuple[str, dict[str, Any]]:
    """Name and request of an export."""
    request = _manifest(folder)
    if request["run_id"] != run_id:
        raise ConfigError(
            f"'{folder}' was exported from '{request['run_id']}', not from '{run_id}'."
        )
    config = CONFIGS.get((request["trainer"], request["kind"]))
    if config is None:
        name = f"{request['trainer']} ({request['kind']})"
        fix = "Export with --trainer trl or verl, whose rows are Parquet."
        raise ConfigError(f"An export for {name} is no table.", fix)
    return config, request


def _split_tables(folder: Path, config: str) -> list[Table]:
    """The splits of an export."""
    splits: dict[str, list[Path]] = {}
    for file in sorted((folder / FOLDER).glob("*.parquet")):
        if found := _SPLIT.fullmatch(file.name):
            splits.setdefault(found[1], []).append(file)
    return [Table(config, split, tuple(files)) for split, files in sorted(splits.items())]


def _recipe_tables(folder: Path, config: str, beside: dict[str, Path]) -> list[Table]:
    """The tables of an export without pixels, published as they are, so that its folder can be
    had back; its other files go `beside`."""
    tables = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != OVERLAPS):
        path = f"{RECIPES}/{config}/{file.relative_to(folder).as_posix()}"
        if file.suffix == ".parquet" and file.parent == folder:
            tables.append(Table(f"{config}_{file.stem}", "train", (file,), path))
        else:
            beside[path] = file
    return tables


def _manifest(folder: Path) -> dict[str, Any]:
    """What was asked of an export."""
    try:
        request = json.loads((folder / EXPORT).read_text("utf-8"))["request"]
        return {**request, "trainer": request["trainer"], "kind": request["kind"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "Make one with: cofpipe export RUN --trainer trl --out DIR"
        raise ConfigError(f"'{folder}' is neither a run nor an export.", fix) from error


def _books(run_dir: Path, scratch: Path) -> list[Table]:
    """What the run rejected and what it paid for, as tables of their own.

    Raises `ConfigError` for a run that is not at rest.
    """
    tables = []
    with database.connect(run_dir.parent, run_dir.name) as connection:
        connection.execute("SET enable_progress_bar = false")  # it is drawn on stdout
        if ("running",) in connection.execute("SELECT status FROM runs").fetchall():
            fix = "Let it end; one that was killed is continued by its own command."
            raise ConfigError(f"'{run_dir.name}' is still running.", fix)
        for name in ("rejections", "calls"):
            found = connection.execute(query(f"run_{name}")).to_arrow_table()
            if found.num_rows:
                file = scratch / f"{name}.parquet"
                pq.write_table(found.replace_schema_metadata(None), file)
                tables.append(Table(name, "train", (file,)))
    return tables


def _holds_pictures(table: Table) -> bool:
    schema = pq.read_schema(table.files[0])
    return '"image"' in described(schema)


def _origins(kind: str, files: Sequence[Path]) -> tuple[tuple[str, str, int], ...]:
    if not files:
        return ()
    asked = f"SELECT coalesce(source, ''), coalesce(license, ''), count(*) FROM {kind} GROUP BY ALL"
    with connection_over({kind: [str(file) for file in files]}) as connection:
        return tuple(sorted(connection.execute(asked).fetchall()))
