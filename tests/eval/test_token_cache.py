"""Laws of codes on disk: kept once, never trusted when damaged, handed on without loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.eval.token_cache import (
    Picture,
    TokenCache,
    batches,
    digest_of,
    encoded,
    write_shards,
)

TOKENIZER = "ab" * 32
TOKENS = 4


class Encodes:
    """Codes that follow from a picture's only pixel; counts the pictures it is shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def __call__(self, pixels: Iterable[np.ndarray]) -> np.ndarray:
        seen = [int(one.flat[0]) for one in pixels]
        self.shown += seen
        return np.array([[n, n + 1, 8191, 0] for n in seen], np.int64)


def pictures(*numbers: int) -> list[Picture]:
    def opened(number: int) -> np.ndarray:
        return np.full((3, 1, 1), number, np.float32)

    return [(hashlib.sha256(str(n).encode()).hexdigest(), lambda n=n: opened(n)) for n in numbers]


def cache(root: Path, view: str = "crop", tokenizer: str = TOKENIZER) -> TokenCache:
    return TokenCache(root, tokenizer, view, TOKENS)


def test_a_picture_is_encoded_once_ever(tmp_path: Path) -> None:
    first, encode = cache(tmp_path), Encodes()
    found = encoded(pictures(5, 7, 5), encode, first)
    assert found.tolist() == [[5, 6, 8191, 0], [7, 8, 8191, 0], [5, 6, 8191, 0]]
    assert found.dtype == np.int64 and encode.shown == [5, 7]
    again = cache(tmp_path)
    assert encoded(pictures(7, 9, 5), encode, again).tolist()[0] == [7, 8, 8191, 0]
    assert encode.shown == [5, 7, 9]
    assert (again.found, again.computed, again.corrupt) == (2, 1, 0)
    assert encoded([], encode, again).shape == (0, TOKENS)


def test_another_tokenizer_or_view_has_codes_of_its_own(tmp_path: Path) -> None:
    encode = Encodes()
    for one in (cache(tmp_path), cache(tmp_path, "squash"), cache(tmp_path, tokenizer="cd" * 32)):
        encoded(pictures(5), encode, one)
    assert encode.shown == [5, 5, 5]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "swapped"])
def test_a_damaged_file_is_never_trusted_and_is_counted_and_healed(
    tmp_path: Path, damage: str
) -> None:
    encode = Encodes()
    wanted = encoded(pictures(5, 7), encode, cache(tmp_path))
    (path,) = tmp_path.rglob("*.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    other = tmp_path / "other"
    encoded(pictures(1), Encodes(), cache(other))
    (elsewhere,) = other.rglob("*.parquet")
    path.write_bytes(
        {
            "cut": bytes(data[: len(data) // 2]),
            "flipped": bytes(data),
            "emptied": b"",
            "swapped": elsewhere.read_bytes(),
        }[damage]
    )
    hurt = cache(tmp_path)
    assert (hurt.corrupt, hurt.found) == (1, 0)
    assert not path.exists()
    assert (encoded(pictures(5, 7), encode, hurt) == wanted).all()
    assert (encode.shown, hurt.computed) == ([5, 7, 5, 7], 2)
    healed = cache(tmp_path)
    assert healed.corrupt == 0
    assert (encoded(pictures(5, 7), encode, healed) == wanted).all()
    assert len(encode.shown) == 4


def test_a_whole_file_of_another_tokenizer_is_not_taken(tmp_path: Path) -> None:
    encoded(pictures(5), Encodes(), cache(tmp_path))
    (path,) = tmp_path.rglob("*.parquet")
    place = tmp_path / f"{'cd' * 8}-crop"
    place.mkdir()
    path.rename(place / path.name)
    other = cache(tmp_path, tokenizer="cd" * 32)
    assert other.corrupt == 1 and pictures(5)[0][0] not in other


def test_processes_share_a_folder_and_what_is_half_written_is_not_seen(tmp_path: Path) -> None:
    one, two = cache(tmp_path), cache(tmp_path)
    encoded(pictures(1, 2), Encodes(), one)
    encoded(pictures(1, 2), Encodes(), two)  # the same file, twice
    encoded(pictures(2, 3), Encodes(), two)
    folder = next(tmp_path.rglob("*.parquet")).parent
    (folder / f".{'0' * 64}.parquet.12ab.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    late = cache(tmp_path)
    assert late.corrupt == 0 and (folder / "notes.txt").exists()
    assert all(digest in late for digest, _ in pictures(1, 2, 3))
    assert len(list(folder.glob("*.parquet"))) == 2


def test_what_was_encoded_is_kept_when_a_later_picture_fails(tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def broken() -> np.ndarray:
        raise Broken

    many = pictures(*range(300))
    with pytest.raises(Broken):
        encoded([*many, ("ff" * 32, broken)], Encodes(), cache(tmp_path))
    assert sum(digest in cache(tmp_path) for digest, _ in many) == 256


def test_codes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    digest = pictures(1)[0][0]
    for codes in ([1, 2, 3], [1, 2, 3, -1], [1, 2, 3, 1 << 16]):
        with pytest.raises(ValueError, match="not 4 of 16 bits"):
            cache(tmp_path).add({digest: np.array(codes)})


def test_a_pictures_digest_is_that_of_its_pixels_and_size() -> None:
    wide, tall = Image.new("RGB", (4, 2), (9, 9, 9)), Image.new("RGB", (2, 4), (9, 9, 9))
    assert digest_of(wide) == digest_of(wide.convert("L")) != digest_of(tall)


def test_sentences_are_written_whole_in_order_and_with_their_meaning(tmp_path: Path) -> None:
    told = [(f"s{n}", np.arange(TOKENS * (n + 1)) % 8192) for n in range(5)]
    names = write_shards(tmp_path, told, tokenizer=TOKENIZER, frame_tokens=TOKENS, shard_rows=2)
    assert names == [f"sentences-{n:05d}.parquet" for n in range(3)]
    tables = [pq.read_table(tmp_path / name) for name in names]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [(row["key"], row["codes"]) for row in rows] == [(k, v.tolist()) for k, v in told]
    assert [row["frames"] for row in rows] == [1, 2, 3, 4, 5]
    meta = tables[0].schema.metadata
    assert meta[b"tokenizer"] == TOKENIZER.encode() and meta[b"frame_tokens"] == b"4"
    before = (tmp_path / names[0]).read_bytes()
    write_shards(tmp_path, told, tokenizer=TOKENIZER, frame_tokens=TOKENS, shard_rows=2)
    assert (tmp_path / names[0]).read_bytes() == before


@pytest.mark.parametrize("codes", [[0, 1, 2], [], [0, 1, 2, 8192], [0, 1, 2, -1]])
def test_broken_sentences_are_refused_by_name(tmp_path: Path, codes: list[int]) -> None:
    bad = [("bad", np.array(codes, np.int64))]
    with pytest.raises(ConfigError, match="'bad'"):
        write_shards(tmp_path, bad, tokenizer=TOKENIZER, frame_tokens=TOKENS)
    assert not list(tmp_path.iterdir())


def test_batches_are_in_order_and_lose_nothing() -> None:
    assert list(batches(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []
