"""A run's prompts as folders of frames, the way they were published: `{image id:012d}_{step}.jpg`.

Takes the committed Parquet alone. Names follow from the image ids; two of one name are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import BadImage, ConfigError
from pipeline.runner.rundir import records
from pipeline.runner.storage import Storage, storage_at
from pipeline.sources.decode import decode
from pipeline.sources.prompt_folders import stem_of, write_prompts
from pipeline.synthesis.prompt_check import BATCH_ROWS, KIND
from pipeline.synthesis.stored import stored_rows

Row = dict[str, object]


def export_prompts(
    run_dir: str | Path, out: Path, *, task: str | None = None, full: bool = False
) -> int:
    """Write the frames of every prompt below `out`, with `full` all objects too; how many prompts.

    `task` is `seg` or `pose` and needed only where the run has both. Raises `ConfigError` where
    that is open, or where images would share a name.
    """
    storage = storage_at(str(run_dir))
    paths = [f.path for record in records(storage) for f in record.files if f.kind == KIND]
    names = _names(storage, paths, task)
    written = 0
    for path in paths:
        for row in stored_rows(
            storage, path, BATCH_ROWS, ["image_id", "task", "frames.list.element.bytes"]
        ):
            if row["image_id"] in names and row["task"] == (task or row["task"]) and row["frames"]:
                try:
                    frames = [decode(frame["bytes"]) for frame in row["frames"]]
                except BadImage as error:
                    message = f"The frames of '{row['image_id']}' are damaged."
                    raise ConfigError(message, "Look with: cofpipe fsck RUN --recheck") from error
                write_prompts(out, names[row["image_id"]], frames, full=full)
                written += 1
    return written


def _names(storage: Storage, paths: list[str], task: str | None) -> dict[str, str]:
    """A file stem for each image: its file's own where no other has it, else the whole key."""
    found = [row for path in paths for row in _listed(storage, path)]
    tasks = {told for _, told in found}
    if task is None and len(tasks) > 1:
        raise ConfigError("This run has prompts of both tasks.", "Choose with --task seg or pose.")
    if task is not None and task not in tasks:
        raise ConfigError(f"This run has no prompts of task '{task}'.")
    ids = sorted({image_id for image_id, told in found if told == (task or told)})
    short = {image_id: stem_of(_stem(image_id)) for image_id in ids}
    often = Counter(short.values())
    names = {i: name if often[name] == 1 else stem_of(_whole(i)) for i, name in short.items()}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ConfigError(f"Two images would be called '{twice[0]}'.", "Rename one of them.")
    return names


def _listed(storage: Storage, path: str) -> Iterator[tuple[str, str]]:
    for row in stored_rows(storage, path, BATCH_ROWS, ["image_id", "task"]):
        yield row["image_id"], row["task"]


def _stem(image_id: str) -> str:
    """`012.jpg` of `train/012.jpg` or `part.tar#012.jpg`, without its ending."""
    return PurePosixPath(image_id.rpartition("#")[2]).stem


def _whole(image_id: str) -> str:
    """The whole key as one name."""
    return image_id.replace("/", "-").replace("#", "-")
