"""Whether a dataset holds pictures of a benchmark: `decontaminate`. One that does ends with 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.places import DATASETS, RUNS_DIR, AsJson, RunsDir, find_run
from pipeline.cli.printing import clean, emit, say
from pipeline.errors import BadImage, CheckFailed, ConfigError

if TYPE_CHECKING:
    from pipeline.eval.benchmark import Benchmark
    from pipeline.sources.base import Picture, Source
    from pipeline.synthesis.decontaminate import Against, Overlaps

BENCHMARKS = ("vstar", "hrbench", "mme", "mmbench", "pope")
"""Those with pictures that are published."""
SIZES = ("4k", "8k")
"""HR-Bench's; one of them alone is `hrbench-4k`."""
TABLE = "hr_bench"
"""How its files' names begin; their pictures are base64, which only its reader takes."""
UNSEEN = ("link_outside", "folder_link", "not_a_file", "unreadable_folder", "vanished")
"""What a walk over a folder leaves out though it may be a picture."""


def decontaminate(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_DIR", help="A run, or a folder that was exported.")
    ] = "latest",
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="A folder of pictures; vstar[:DIR], hrbench[:DIR], mme[:DIR], mmbench[:DIR], "
            "pope[:DIR]; any source. Repeatable.",
        ),
    ] = None,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Look for pictures of benchmarks, altered or cut ones too, and for pictures there twice."""
    from pipeline.synthesis.decontaminate import decontaminate as look

    folder = dataset_folder(runs_dir, run)
    sets = [one for spec in against or () for one in sets_of(spec)]
    found = look(folder, sets)
    if json:
        emit({"folder": folder.name, **asdict(found)})
    else:
        _tell(folder, found)
    if found.overlaps:
        count = len({overlap.image_id for overlap in found.overlaps})
        raise CheckFailed(f"{count} pictures of {folder.name} are those of a benchmark.")
    if found.unreadable:
        names = ", ".join(one.name for one in found.unreadable[:3])
        raise CheckFailed(f"{len(found.unreadable)} pictures could not be compared: {names}.")


def dataset_folder(runs_dir: str, run: str) -> Path:
    """The folder of a run or of a dataset; raises `ConfigError` for what is neither."""
    path = Path(run).expanduser()
    return path if "/" in run and path.is_dir() else find_run(runs_dir, run, DATASETS)


def sets_of(spec: str) -> Iterator[Against]:
    """The pictures that `--against` names; raises `ConfigError` for what cannot be read."""
    from pipeline.sources.specs import open_source

    path, (name, _, rest) = Path(spec).expanduser(), spec.partition(":")
    if path.is_dir():
        yield from _sets_in(path)
    elif not path.exists() and name.partition("-")[0] in BENCHMARKS:
        yield from _benchmark(name, rest or None)
    elif path.name.startswith(TABLE):
        yield from _benchmark(f"hrbench-{'8k' if '8k' in path.name else '4k'}", spec)
    else:
        yield _from_source(open_source(spec))


def _sets_in(folder: Path) -> Iterator[Against]:
    """Everything in a folder: its loose pictures, and those in its tables."""
    from pipeline.sources.folder import FolderSource
    from pipeline.sources.specs import open_source

    loose, tables = FolderSource(folder), sorted(folder.rglob("*.parquet"))
    hrbench = [p for p in [*tables, *folder.rglob("*.tsv")] if p.name.startswith(TABLE)]
    for path in hrbench:
        yield from _benchmark(f"hrbench-{'8k' if '8k' in path.name else '4k'}", str(path))
    if set(tables) - set(hrbench):
        yield _from_source(open_source(f"parquet:{folder}"))
    if any(True for _ in loose.entries()) or not tables + hrbench:
        yield _from_source(loose)


def _from_source(source: Source) -> Against:
    from pipeline.synthesis.decontaminate import Against

    return Against(source.name, _pictures(source))


def _pictures(source: Source) -> Iterator[Picture]:
    """The pictures of a source, and one that cannot be read for whatever it left out."""
    from pipeline.sources.base import Picture

    for entry in source.entries():
        yield from source.pictures(entry)
    for reason in UNSEEN:
        if count := source.skipped[reason]:
            yield Picture(f"{count} names", error=BadImage(reason))


def _benchmark(name: str, source: str | None) -> Iterator[Against]:
    """A benchmark's pictures; HR-Bench without a size in both of its sizes, where they are."""
    from pipeline.eval.benchmarks.opening import open_benchmark
    from pipeline.synthesis.decontaminate import Against

    base, _, size = name.partition("-")
    sizes: tuple[str, ...] = (size,) if size else SIZES if base == "hrbench" else ("",)
    missing: ConfigError | None = None
    opened = []
    for one in sizes:
        try:
            opened.append(
                open_benchmark(base, source, size=one) if one else open_benchmark(base, source)
            )
        except ConfigError as error:
            missing = error
    if missing and not opened:
        raise missing
    for benchmark in opened:
        yield Against(benchmark.name, _asked_about(benchmark))


def _asked_about(benchmark: Benchmark) -> Iterator[Picture]:
    """The pictures of a benchmark's questions, each once."""
    from pipeline.sources.base import Picture

    for item in {item.image_id: item for item in benchmark.items}.values():
        try:
            yield Picture(item.image_id, data=benchmark.picture(item))
        except BadImage as error:
            yield Picture(item.image_id, error=error)


def _tell(folder: Path, found: Overlaps) -> None:
    for overlap in found.overlaps:
        where = f"{overlap.set}: {overlap.name}"
        print(f"✗ {clean(overlap.image_id)}  {overlap.how} {overlap.score:.2f}  {clean(where)}")
    for names in found.inside:
        print(f"! the same: {clean(', '.join(names))}")
    for one in found.unreadable:
        print(f"! {clean(one.set or folder.name)}: {clean(one.name)} {one.reason}")
    sets = ", ".join(f"{one.name} ({one.pictures})" for one in found.against)
    say(f"{found.pictures} pictures of {folder.name} compared with {clean(sets)}.")
    say(f"{len(found.overlaps)} overlaps, {len(found.inside)} groups of the same picture inside.")
