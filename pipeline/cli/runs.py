"""Looking at runs: `runs`, `sql`, `show`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.places import RUNS_DIR, AsJson, RunsDir, find_run, run_ids
from pipeline.cli.printing import clean, emit, print_csv, print_table, say
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

RUNS = """
SELECT run_id, kind, status, shards_done, shards_total, rows, rejected, cost_usd, started_at
FROM runs ORDER BY started_at, run_id
"""
PATHS = "SELECT * FROM trajectories WHERE sample_id = ? ORDER BY run_id, resolution, rollout"
LOOKS = "SELECT * FROM steps WHERE sample_id = ? ORDER BY run_id, resolution, rollout, step, region"
HOLDING = """
SELECT run_id FROM trajectories WHERE sample_id = $1
UNION SELECT run_id FROM prompts WHERE sample_id = $1
"""
PROMPTS = "SELECT * FROM prompts WHERE sample_id = ? ORDER BY run_id"
REFUSED = "SELECT * FROM rejections WHERE sample_id = ? ORDER BY run_id, resolution, rollout"


class Format(StrEnum):
    """How the answer of a query is written."""

    table = "table"
    json = "json"
    csv = "csv"


def runs(json: AsJson = False, runs_dir: RunsDir = RUNS_DIR) -> None:
    """List the runs below the runs directory."""
    with _connect(runs_dir) as connection:
        _write(connection.execute(RUNS), Format.json if json else Format.table)


def sql(
    query: Annotated[str, typer.Argument(help="SQL over the views: runs, trajectories, steps, …")],
    format: Annotated[Format, typer.Option("--format", help="How to write the answer.")] = (
        Format.table
    ),
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE.duckdb", help="Keep the views and the answer there."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Only this run (faster than a WHERE).")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR_OR_REPO",
            help="A pushed dataset instead: a folder, or hf://datasets/ORG/NAME.",
        ),
    ] = None,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Ask runs with SQL, also while they are running; or a dataset that was pushed."""
    import duckdb

    if data is not None:
        _ask_dataset(data, query, Format.json if json else format, save)
        return
    with _connect(runs_dir, run) as connection:
        try:
            _write(_asked(connection, query, runs_dir, run), Format.json if json else format)
            if save is not None:
                _save(connection, query, save)
        except duckdb.Error as error:
            raise ConfigError(f"The query does not work: {_sentence(error)}") from error


def show(
    sample_id: Annotated[str, typer.Argument(metavar="SAMPLE_ID", help="As in the views.")],
    draw: Annotated[
        Path | None,
        typer.Option(
            "--draw",
            metavar="FILE.png",
            help="Draw its longest path or its prompt, of the latest run.",
        ),
    ] = None,
    json: AsJson = False,
    run: Annotated[str | None, typer.Option("--run", help="Only this run.")] = None,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Show what became of one sample: looks and answers, a visual prompt, or the rejection."""
    if draw is not None:
        _draw(sample_id, find_run(runs_dir, run or _latest_with(sample_id, runs_dir)), draw)
        return
    with _connect(runs_dir, run) as connection:
        paths = _dicts(connection.execute(PATHS, [sample_id]))
        looks = _dicts(connection.execute(LOOKS, [sample_id]))
        prompts = _dicts(connection.execute(PROMPTS, [sample_id]))
        refused = _dicts(connection.execute(REFUSED, [sample_id]))
    if not paths and not prompts and not refused:
        ask = "cofpipe sql 'select sample_id from trajectories limit 20'"
        raise ConfigError(f"No run has a sample '{clean(sample_id)}'.", f"See some with: {ask}")
    for path in paths:
        mine = [look for look in looks if _key(look) == _key(path)]
        emit({**path, "looks": mine}) if json else _tell(path, mine)
    for prompt in prompts:
        emit(prompt) if json else _tell_prompt(prompt)
    for row in refused:
        emit({"rejected": row}) if json else _tell_refusal(row)


def _connect(runs_dir: str, run: str | None = None) -> duckdb.DuckDBPyConnection:
    from manifests.database import connect

    return connect(*_place(runs_dir, run))


def _place(runs_dir: str, run: str | None) -> tuple[str, str | None]:
    """The runs directory and the run's id, whichever way the run was named."""
    if run is None or "://" in runs_dir:
        return runs_dir, run
    found = find_run(runs_dir, run)
    return str(found.parent), found.name


def _asked(
    connection: duckdb.DuckDBPyConnection, query: str, runs_dir: str, run: str | None
) -> duckdb.DuckDBPyConnection:
    """The answer to a query; asked again when a run that ended meanwhile moved its files."""
    import duckdb

    from manifests.database import refresh

    try:
        return connection.execute(query)
    except duckdb.IOException:
        refresh(connection, *_place(runs_dir, run))
        return connection.execute(query)


def _ask_dataset(data: str, query: str, format: Format, save: Path | None) -> None:
    """The answer to a query over a pushed dataset: each of its configurations is a view."""
    import duckdb

    from pipeline.synthesis.published_dataset import open_dataset

    if save is not None:
        raise ConfigError("--save keeps the views of runs.", "A dataset is Parquet already.")
    with open_dataset(data).connection() as connection:
        try:
            _write(connection.execute(query), format)
        except duckdb.Error as error:
            raise ConfigError(f"The query does not work: {_sentence(error)}") from error


def _write(answer: duckdb.DuckDBPyConnection, format: Format) -> None:
    names = [column[0] for column in answer.description or ()]
    if format is Format.json:
        while row := answer.fetchone():
            emit(dict(zip(names, row, strict=True)))
    elif format is Format.csv:
        print_csv(names, iter(answer.fetchone, None), sys.stdout)
    else:
        found = answer.fetchall()
        print_table(names, found, sys.stdout)
        say(f"{len(found)} row{'s' * (len(found) != 1)}")


def _save(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    """The views as tables of a DuckDB file, and the answer as its table `result`."""
    from manifests.database import save

    if not file.parent.is_dir():
        raise ConfigError(f"There is no folder '{file.parent}' to save in.", "Make it first.")
    save(connection, str(file))
    quoted = str(file).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS saved")
    connection.execute(f"CREATE OR REPLACE TABLE saved.result AS {query.rstrip().rstrip(';')}")
    connection.execute("DETACH saved")
    say(f"Saved in {file}: every view as a table, and the answer as table 'result'.")


def _sentence(error: Exception) -> str:
    """The part of DuckDB's message that says what is wrong, without the echo of the query."""
    return clean(str(error).split("\n\nLINE")[0].replace("\n", " ")).strip()


def _dicts(answer: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def _latest_with(sample_id: str, runs_dir: str) -> str:
    """The latest run that kept the sample; the latest of all where none did."""
    with _connect(runs_dir) as connection:
        holding = {row[0] for row in connection.execute(HOLDING, [sample_id]).fetchall()}
    return next((name for name in reversed(run_ids(runs_dir)) if name in holding), "latest")


def _draw(sample_id: str, run_dir: Path, file: Path) -> None:
    """Write a picture of the sample's longest path, or of its prompt."""
    from pipeline.report.draw import question_picture
    from pipeline.report.pictures import decode, read_pictures
    from pipeline.report.prompt_strip import prompt_picture
    from pipeline.report.prompts import named_prompts, read_prompt_pictures
    from pipeline.report.rows import named

    with _connect(str(run_dir.parent), run_dir.name) as connection:
        paths = named(connection, [sample_id])
        prompts = named_prompts(connection, [sample_id])
    image = decode(read_pictures(run_dir, "trajectories", [sample_id]).get(sample_id))
    pictures = read_prompt_pictures(run_dir, [sample_id]).get(sample_id)
    if paths and image is not None:
        question_picture(paths[0], image).save(file)
    elif prompts and pictures is not None:
        prompt_picture(prompts[0], pictures).save(file)
    else:
        raise ConfigError(f"{run_dir.name} kept nothing of '{clean(sample_id)}'.")
    say(str(file))


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["run_id"], row["sample_id"], row["resolution"], row["rollout"]


def _tell(path: dict[str, Any], looks: list[dict[str, Any]]) -> None:
    print(f"{path['run_id']} · budget {path['resolution']} · rollout {path['rollout']}")
    print(f"  question  {clean(path['question'])}")
    for look in looks:
        box = ", ".join(f"{look[side]:g}" for side in ("x0", "y0", "x1", "y1"))
        mark = "zoom" if look["zoomed"] else "name"
        print(f"  {look['step']}. {mark} [{box}]  {clean(look['thought'] or '')}")
    print(f"  thought   {clean(path['final_thought'] or '')}")
    verdict = {True: "verified", False: "wrong", None: "not verified"}[path["verified"]]
    print(f"  answer    {clean(path['answer'] or '')}  ({verdict}, {path['finish']})")
    print(f"  seen      {path['num_zooms']} zooms, {path['visual_tokens']} visual tokens\n")


def _tell_prompt(prompt: dict[str, Any]) -> None:
    print(f"{prompt['run_id']} · {prompt['task']} · {prompt['role']}")
    whose = "proposed" if prompt["segmenter"] else "marked by the source"
    flat = ", the map is flat" * bool(prompt["flat_saliency"])
    print(f"  objects   {prompt['num_objects']}, {whose}{flat}")
    shown = prompt["level_sizes"] or []
    for place, found in enumerate(prompt["objects"] or (), start=1):
        level = next(n for n, size in enumerate(shown, start=1) if place <= size)
        box = ", ".join(str(edge) for edge in found["bbox"])
        name = clean(f"{found['category'] or 'object'} {found['id']}")
        print(f"  {place}. level {level}  {found['saliency']:.3g}  {name}  [{box}]")
    print()


def _tell_refusal(row: dict[str, Any]) -> None:
    where = f"{row['run_id']} · budget {row['resolution']} · rollout {row['rollout']}"
    print(f"{where}\n  rejected  {row['reason']} in {row['stage']}: {clean(row['detail'] or '')}\n")
