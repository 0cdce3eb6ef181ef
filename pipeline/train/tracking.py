"""A training as a run among the others: what it came from, how it went, which checkpoints it left.

Writes `run.json` and events below the runs directory, so that the view `runs` has a row for it, and
`cofpipe.json` into every checkpoint. Knows nothing of what is trained how; of several processes
only the first one writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.models.weights import sha256_of
from pipeline.runner.events import EventLog, any_events
from pipeline.runner.rundir import write_run
from pipeline.runner.storage import Storage, storage_at

KIND = "checkpoints"
STAMP = "cofpipe.json"
MANIFEST = "manifest.json"
"""Of an exported folder; it names every file with its digest."""
PACKAGES = ("cofpipe", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "pillow")


class Tracked:
    """A training that is under way."""

    def __init__(
        self, run_dir: Path, told: Mapping[str, Any], events: EventLog | None, *, continued: bool
    ) -> None:
        self.run_id = run_dir.name
        self.run_dir = run_dir
        self.continued = continued
        """Whether it had begun before."""
        self.stopped = False
        """Set by whoever ends it early: it ends as `interrupted`, to be resumed."""
        self._told = told
        self._events = events

    def stamp(self, folder: Path, step: int) -> None:
        """Say in a checkpoint's folder what it came from, after `step` updates.

        Nothing is written by any process but the first, and nothing where there is no folder.
        """
        if self._events is None or not folder.is_dir():
            return
        weights = {file.name: sha256_of(file) for file in sorted(folder.glob("*.safetensors"))}
        fields = {"run_id": self.run_id, "step": step, **self._told, "weights": weights}
        (folder / STAMP).write_text(
            json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        saved = {"path": str(folder), "step": step, "weights": list(weights.values())}
        self._events.add("saved", json.dumps(saved))

    def end(self, event: str, detail: str = "") -> None:
        """Note how it ended."""
        if self._events is not None:
            self._events.add(event, detail)


@contextmanager
def training(
    runs_dir: str | Path,
    kind: str,
    settings: Mapping[str, Any],
    parents: Sequence[str],
    *,
    out: Path,
    data: str = "",
    seed: int = 0,
) -> Iterator[Tracked]:
    """A training of a `kind` (`sft`, `rl`) into `out`; how the block ends is noted.

    `settings` are plain values that determine what is trained; `parents` what it is trained from:
    the run its data came from, digests of data and weights; `data` is the data's digest alone. The
    same arguments are the same run, which goes on. Of several processes all enter, the first one
    writes.
    """
    told = {"kind": kind, "settings": dict(settings), "parents": [*parents], "data": data}
    run_dir = Path(runs_dir).absolute() / _run_id(kind, told, out)
    storage = storage_at(str(run_dir))
    continued = any_events(storage)
    events = _begin(storage, run_dir, told, seed) if is_first_process() else None
    tracked = Tracked(run_dir, told, events, continued=continued)
    tracked.end("resumed" if continued else "started")
    try:
        yield tracked
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | GeneratorExit)
        tracked.end("interrupted" if stopped else "failed", str(error)[:500])
        raise
    tracked.end("interrupted" if tracked.stopped else "finished")


def parents_of(data: Path, model: str | Path) -> list[str]:
    """What a training on an exported folder comes from: its run, its digest, the weights'."""
    request = exported(data)["request"]
    weights = sorted(Path(model).expanduser().glob("*.safetensors"))
    return [str(request["run_id"]), data_digest(data), *map(sha256_of, weights or [])]


def exported(data: Path) -> dict[str, Any]:
    """The manifest of a folder that `cofpipe export` made; raises `ConfigError` for any other."""
    try:
        fields: dict[str, Any] = json.loads((data / MANIFEST).read_text("utf-8"))
        fields["request"]["run_id"], fields["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{data}' is no exported data.", "Make it with: cofpipe export RUN --trainer trl"
        ) from error
    return fields


def data_digest(data: Path) -> str:
    """SHA-256 (hex) of an exported folder: of its manifest, which has every file's digest."""
    return hashlib.sha256((data / MANIFEST).read_bytes()).hexdigest()


def is_first_process() -> bool:
    """Whether this is the only process of a training, or the first of them all."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def first_process_first() -> Iterator[None]:
    """A block that the first process of a training goes through alone, then all the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def stamping(
    tracked: Tracked,
    stop: Callable[[], bool] = lambda: False,
    on_log: Callable[[int, Mapping[str, float]], None] = lambda step, logs: None,
) -> Any:
    """A callback for transformers' trainers: stamps every checkpoint, and ends early.

    Where `stop` says so, in any process, the step is finished, a checkpoint saved, and all end.
    `on_log` gets the step and what was measured, in the first process.
    """
    from transformers import TrainerCallback

    class Stamping(TrainerCallback):
        """Tells each checkpoint where it came from."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if _any_process(stop(), args):
                tracked.stopped = state.global_step < state.max_steps
                control.should_save = control.should_training_stop = True
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if state.is_world_process_zero and logs:
                on_log(state.global_step, logs)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step
            tracked.stamp(Path(args.output_dir) / f"checkpoint-{step}", step)

    return Stamping()


def _any_process(flag: bool, args: Any) -> bool:
    """Whether the flag is set in any of the processes: they must all end at the same step."""
    if args.world_size == 1:
        return flag
    import torch

    told = torch.tensor(int(flag), device=args.device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told)


def _run_id(kind: str, told: Mapping[str, Any], out: Path) -> str:
    text = json.dumps([told, str(out.absolute())], sort_keys=True, default=str)
    return f"train-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _begin(storage: Storage, run_dir: Path, told: Mapping[str, Any], seed: int) -> EventLog:
    """Write `run.json` where there is none yet, and open the events of this session."""
    run_dir.mkdir(parents=True, exist_ok=True)
    fields = {
        "run_id": run_dir.name,
        "kind": KIND,
        "recipe": f"train-{told['kind']}",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "shards_total": 1,
        "parents": told["parents"],
        "config": told["settings"],
        "data": told["data"],
        "versions": {"python": platform.python_version()} | _versions(),
    }
    write_run(storage, fields)
    return EventLog(storage, run_dir.name)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
