"""Training on a run's trajectories: `train sft`, and `train rl` of `train_rl.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.places import RUNS_DIR, TRAJECTORIES, AsJson, RunsDir, find_run
from pipeline.cli.printing import emit, say
from pipeline.cli.stopping import INTERRUPTED, stop_on_signals
from pipeline.cli.train_rl import rl
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.train.sft import Asked, Trained

app = typer.Typer(help="Train a policy on trajectories, by TRL.", no_args_is_help=True)

Data = Annotated[
    str, typer.Option(metavar="RUN|DIR", help="A run, or a folder of `cofpipe export`.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A=B", help="One setting; repeatable.")
]


@app.callback()
def root() -> None:
    """Train a policy on trajectories; several processes by `accelerate launch`."""


@app.command()
def sft(
    data: Data,
    model: Annotated[
        str, typer.Option(metavar="DIR|ORG/NAME", help="A Qwen2-VL, Qwen2.5-VL or Qwen3-VL.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where it goes.")],
    preset: Annotated[str, typer.Option(help="published or smoke.")] = "published",
    profile: Annotated[
        str | None, typer.Option(help="Form of the turns: cof-v2 or cof-v1 [cof-v2].")
    ] = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Also write the adapters merged into the weights.")
    ] = False,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Fine-tune a model on trajectories: what the assistant says is learnt, and that alone.

    A run is exported into the folder first; a row that is too long is refused, never cut.
    """
    from pipeline.train.presets import SFT_PRESETS, SftSettings, settings_from
    from pipeline.train.sft import Asked

    settings = settings_from(SftSettings, SFT_PRESETS, preset, sets or [])
    folder = data_folder(data, out, model, kind="sft", profile=profile, runs_dir=runs_dir)
    _train(Asked(folder, model, out, settings, resume, merge), runs_dir, json)


app.command()(rl)


def data_folder(
    data: str, out: Path, model: str, *, kind: str, profile: str | None, runs_dir: str
) -> Path:
    """The exported rows that `data` means: a folder as it is, a run exported into `out`/data.

    Of several processes the first one exports. Raises `ConfigError` where a folder holds turns of
    another profile than the one that is asked for.
    """
    from pipeline.synthesis.exports import Export, export
    from pipeline.train.loading import family_of_model
    from pipeline.train.tracking import exported, first_process_first

    folder = Path(data).expanduser()
    if folder.is_dir() and not (folder / "run.json").is_file():
        there = exported(folder)["request"]["profile"]
        if profile not in (None, there):
            raise ConfigError(f"'{folder}' holds turns of {there}, not of {profile}.")
        return folder
    run, family = find_run(runs_dir, data, TRAJECTORIES), family_of_model(model)
    asked = Export(
        trainer="trl", kind="rl" if kind == "rl" else "sft", profile=profile or "cof-v2",
        family=family,
    )  # fmt: skip
    with first_process_first():
        export(run, out / "data", asked)
    return out / "data"


def _train(asked: Asked, runs_dir: str, json: bool) -> None:
    from pipeline.train.sft import train_sft
    from pipeline.train.tracking import is_first_process

    def tell(step: int, logs: Mapping[str, float]) -> None:
        told = {name: logs[name] for name in ("loss", "eval_loss", "learning_rate") if name in logs}
        if told and not json:
            say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in told.items()))

    with stop_on_signals() as stop:
        done = train_sft(asked, runs_dir=runs_dir, stop=stop.is_set, on_log=tell)
    if is_first_process():
        emit(done.as_dict()) if json else _tell(done)
    if done.status == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _tell(done: Trained) -> None:
    """The end of a training for people."""
    if done.status == "interrupted":
        say(f"{done.run_id} stopped after {done.steps} updates; the same with --resume goes on.")
        return
    ends = (done.loss_first, done.loss_last)
    losses = "" if None in ends else f", loss {ends[0]:.3f} to {ends[1]:.3f}"
    say(f"{done.run_id}: {done.steps} updates on {done.rows} rows{losses}.")
    print(done.merged or done.model)
