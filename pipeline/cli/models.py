"""Checkpoints: `models list`, `models pull`, `models train`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.places import AsJson
from pipeline.cli.printing import emit, for_people, print_table, say
from pipeline.errors import ConfigError, nearest

app = typer.Typer(
    help="Checkpoints: list them, fetch a published one, train a pocket one.", no_args_is_help=True
)
RECIPES = {
    "pocket-sam": "pipeline.models.pocket_sam",
    "pocket-reader": "pipeline.models.pocket_reader_train",
    "pocket-finder": "pipeline.models.pocket_finder_train",
    "pocket-u2netp": "pipeline.saliency.pocket_u2netp_train",
    "pocket-vqgan": "pipeline.eval.pocket_vqgan_train",
    "pocket-lavm": "pipeline.eval.pocket_lavm_train",
    "pocket-vlm": "pipeline.train.pocket_vlm",
}
"""The module whose `train` makes a checkpoint; imported when it is asked for."""
Folder = Annotated[
    Path | None, typer.Option("--folder", help="Where fetched files lie [COFPIPE_CACHE].")
]


@app.command("list")
def list_(json: AsJson = False, folder: Folder = None) -> None:
    """List the checkpoints that ship with the package and those that can be fetched."""
    from pipeline.models.weights import list_checkpoints

    found = list_checkpoints(folder)
    if json:
        for known in found:
            emit({
                "name": known.name, "present": known.present, "bytes": known.size,
                "sha256": known.digest, "path": str(known.where),
            })  # fmt: skip
        return
    rows = [
        (
            known.name,
            "here" if known.present else f"cofpipe models pull {known.name}",
            f"{known.size / 1e6:.0f} MB" if known.size else "",
            (known.digest or "")[:12],
        )
        for known in found
    ]
    print_table(("name", "get it", "size", "sha256"), rows, sys.stdout)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="As in 'models list'.")],
    json: AsJson = False,
    folder: Folder = None,
) -> None:
    """Fetch a published checkpoint, continuing where an earlier try was cut."""
    from pipeline.models import weights

    path = weights.pull(name, folder, progress=None if json else _told())
    digest = weights.check_digest(path)
    if json:
        emit({"name": name, "path": str(path), "sha256": digest})
    else:
        say(f"sha256 {digest}")
        print(path)


@app.command()
def train(
    name: Annotated[
        str,
        typer.Argument(
            help="pocket-sam, pocket-reader, pocket-finder, pocket-u2netp, pocket-vqgan, "
            "pocket-lavm or pocket-vlm"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the training state and the checkpoint [NAME]."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Length of the schedule.")] = 40.0,
    images: Annotated[
        int | None, typer.Option(min=1, help="Length in pictures instead: reproducible.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and pictures.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=4, help="Processes of one thread each.")] = 2,
) -> None:
    """Train a pocket checkpoint on drawn pictures; the same command again continues."""
    if name not in RECIPES:
        raise ConfigError(f"There is no recipe for '{name}'.", nearest(name, RECIPES))
    recipe = import_module(RECIPES[name])
    made = recipe.train(
        out or Path(name), seed=seed, minutes=minutes, images=images, workers=workers
    )
    print(made)


def _told() -> Callable[[int, int | None], None]:
    """A function that says how far a download is; on a terminal it writes over itself."""
    said = -1

    def tell(have: int, total: int | None) -> None:
        nonlocal said
        tenth = 10 * have // total if total else have // 50_000_000
        if for_people():
            of = f" of {total / 1e6:.0f}" if total else ""
            print(f"\r{have / 1e6:.0f}{of} MB ", end="", file=sys.stderr, flush=True)
            if have == total:
                say()
        elif tenth != said:
            said = tenth
            say(f"{have / 1e6:.0f} MB")

    return tell
