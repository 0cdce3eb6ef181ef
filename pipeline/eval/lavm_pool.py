"""The pool that exemplars come from, and the queries: which are opened, which may be exemplars.

Knows nothing of where pictures lie, of models, choices or scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.errors import BadImage, ConfigError
from pipeline.eval.exemplars import TokenIndex, richnesses
from pipeline.eval.lavm_pictures import (
    FolderPictures,
    Known,
    Pictures,
    RunPictures,
    ScenePictures,
    Shown,
    is_drawn,
    is_run,
    sha256_of,
)
from pipeline.eval.lavm_protocol import LavmProtocol
from pipeline.eval.token_cache import TokenCache, Tokenizer, crop_image, encoded
from pipeline.sources.decode import decode


def open_prompts(asked: LavmProtocol) -> Pictures:
    """What exemplars come from; raises `ConfigError`."""
    if is_drawn(asked.prompts):
        return ScenePictures(asked.prompts, "pool")
    folder = Path(asked.prompts)
    if is_run(folder):
        return RunPictures(folder, asked.task)
    if not asked.images:
        raise ConfigError(
            f"The prompts in '{asked.prompts}' are frames without pictures.",
            "Say where the pictures are, with --images DIR.",
        )
    return FolderPictures(Path(asked.images), folder)


def open_queries(asked: LavmProtocol) -> Pictures:
    """What is predicted; a folder's pictures have a truth where frames of them are given."""
    if is_drawn(asked.queries):
        return ScenePictures(asked.queries, "query")
    folder = Path(asked.queries)
    if is_run(folder):
        return RunPictures(folder, asked.task)
    return FolderPictures(folder, Path(asked.truth) if asked.truth else None)


def pool_places(pool: Pictures, queries: Pictures, levels: int) -> tuple[list[int], Counter[str]]:
    """Places of the pictures that can be exemplars, and how many are left out and why.

    A picture that is also a query is left out: no exemplar may show a query's own truth. Raises
    `ConfigError` where none is left, or where prompts have fewer frames than are asked for.
    """
    asked = {known.sha256 for known in queries.known}
    why = {place: _unfit(known, asked) for place, known in enumerate(pool.known)}
    places = [place for place, reason in why.items() if not reason]
    left_out = Counter(reason for reason in why.values() if reason)
    if not places:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise ConfigError(
            f"There is no picture to prompt with ({told or 'none at all'}).",
            "Make a pool from other pictures: cofpipe synthesize SOURCE --kind prompts.",
        )
    least = min((pool.known[place] for place in places), key=lambda known: known.frames)
    if least.frames < levels:
        raise ConfigError(
            f"The prompt of '{least.image_id}' has {least.frames} frames, not {levels}.",
            f"Ask for --levels {least.frames}.",
        )
    return places, left_out


def _unfit(known: Known, asked: set[str]) -> str:
    if known.sha256 in asked:
        return "is_a_query"
    return "" if known.frames else "without_frames"


def encoded_pool(
    pool: Pictures, places: Sequence[int], tokenizer: Tokenizer
) -> tuple[TokenIndex, np.ndarray]:
    """The index of the pictures at these places, and the richness of their final frames, (N,).

    Both from the codes of crops, which are kept for the next worker. Raises `ConfigError` for a
    picture that cannot be used: a pool is not changed behind one's back.
    """
    cache = TokenCache(None, tokenizer.digest, "crop", tokenizer.tokens)
    images = [
        (pool.known[place].sha256, partial(_crop, pool, place, None, tokenizer.side))
        for place in places
    ]
    finals = [
        (sha256_of(_read(pool, place).frames[-1]), partial(_crop, pool, place, -1, tokenizer.side))
        for place in places
    ]
    index = TokenIndex.build(encoded(images, tokenizer.encode, cache))
    return index, richnesses(encoded(finals, tokenizer.encode, cache))


def _crop(pool: Pictures, place: int, frame: int | None, side: int) -> np.ndarray:
    """The crop of a picture of the pool, or of a frame of it, as the tokenizer takes it."""
    shown = _read(pool, place)
    try:
        return crop_image(decode(shown.image if frame is None else shown.frames[frame]), side)
    except BadImage as error:
        raise _unusable(pool, place, error) from error


def _read(pool: Pictures, place: int) -> Shown:
    try:
        return pool.read(place)
    except BadImage as error:
        raise _unusable(pool, place, error) from error


def _unusable(pool: Pictures, place: int, error: BadImage) -> ConfigError:
    why = " ".join(filter(None, (error.reason, error.detail)))
    name = pool.known[place].image_id
    message = f"The picture or a frame of '{name}' in the pool cannot be used: {why}."
    return ConfigError(message, "Take it out of the pool.")
