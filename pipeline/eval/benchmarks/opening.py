"""Benchmarks by name, and opening one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module

from pipeline.errors import ConfigError, nearest
from pipeline.eval.benchmark import Benchmark

BENCHMARKS = ("vstar", "hrbench", "mme", "mmbench", "pope", "folder", "needles")
"""Each is `read` of the module of its name."""
_OURS = ("source", "seed", "limit")


def open_benchmark(
    name: str,
    source: str | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    **options: str | int | float | bool,
) -> Benchmark:
    """The benchmark of that name, its questions read, its pictures not.

    `source` is a folder or a file, `hf://datasets/ORG/NAME[@REVISION]`, or None: where it is
    published. `limit` takes a part of it (`part_of`); `options` are the benchmark's own. Raises
    `ConfigError` for what is not there or cannot be read, saying what to place where.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"There is no benchmark '{name}'.", nearest(name, BENCHMARKS))
    if limit is not None and limit < 1:
        raise ConfigError("A limit is counted from 1.")
    read: Callable[..., Benchmark] = import_module(f"{__package__}.{name}").read
    known = [word for word in inspect.signature(read).parameters if word not in _OURS]
    for word in options:
        if word not in known:
            fix = nearest(word, known) if known else "It has none."
            raise ConfigError(f"'{name}' has no option '{word}'.", fix)
    return read(source, seed=seed, limit=limit, **options)


def one_of(what: str, word: str, known: tuple[str, ...]) -> str:
    """An option's word; raises `ConfigError` for one that it cannot be."""
    if word not in known:
        raise ConfigError(f"{what} cannot be '{word}'.", nearest(str(word), known))
    return word
