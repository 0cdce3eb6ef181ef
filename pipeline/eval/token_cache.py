"""Pictures to codes by the thousand: how they are brought to size, encoded, kept and handed on.

A cache is a folder of files that are written once, whole, under the SHA-256 of their bytes: what
is damaged is told by its name, dropped, counted and computed anew. Knows nothing of exemplars.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import BadImage, ConfigError
from pipeline.eval.lavm_config import CODES, FRAME_TOKENS, View
from pipeline.models.weights import cache_dir
from pipeline.runner.storage import storage_at

if TYPE_CHECKING:
    from pipeline.eval.vqgan import Vqgan

Picture = tuple[str, Callable[[], np.ndarray]]
"""SHA-256 (hex) of a picture, and its pixels as the tokenizer takes them: float32 (3, H, W)."""

SIDE_PX = 256
"""Side of the published tokenizer's pictures."""

_LONGEST = 200
"""Times a picture may be longer than wide: one of a few rows would become gigabytes."""
_AT_ONCE = 256
"""Pictures encoded between two writes of a cache."""
_NAMED = re.compile(r"([0-9a-f]{64})\.parquet")
_DIGEST_BYTES = 32


def cropped(image: Image.Image, side: int = SIDE_PX) -> Image.Image:
    """The middle square of an image whose shorter side has become `side` pixels, bilinear; RGB.

    Raises `BadImage` for a strip.
    """
    short, long = min(image.size), max(image.size)
    if long > _LONGEST * short:
        raise BadImage("extreme_aspect", f"{image.width} × {image.height}")
    width, height = (side if size == short else int(side * size / short) for size in image.size)
    image = image.convert("RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def squashed(image: Image.Image, side: int = SIDE_PX) -> Image.Image:
    """The whole image as a square of `side` pixels, bicubic; RGB."""
    return image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def crop_image(image: Image.Image, side: int = SIDE_PX) -> np.ndarray:
    """`cropped`, as a tokenizer takes it: float32 (3, side, side) in [0, 1]."""
    return pixels_of(cropped(image, side))


def squash_image(image: Image.Image, side: int = SIDE_PX) -> np.ndarray:
    """`squashed`, as a tokenizer takes it: float32 (3, side, side) in [0, 1]."""
    return pixels_of(squashed(image, side))


VIEWS: Mapping[View, Callable[[Image.Image, int], np.ndarray]] = {
    "crop": crop_image,
    "squash": squash_image,
}


def pixels_of(image: Image.Image) -> np.ndarray:
    """An RGB image's pixels, float32 (3, H, W) in [0, 1]."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), np.float32) / 255


def digest_of(image: Image.Image) -> str:
    """SHA-256 (hex) of an image's size and RGB pixels: the same for any lossless file of it."""
    header = f"{image.width}x{image.height}\n".encode()
    return hashlib.sha256(header + image.convert("RGB").tobytes()).hexdigest()


class Tokenizer:
    """A VQGAN on a device, float32, for any number of pictures."""

    def __init__(
        self, network: Vqgan, digest: str, *, device: str = "cpu", batch: int = 32
    ) -> None:
        """`batch`: pictures at once; a CPU takes one, so its codes do not depend on the others."""
        import torch

        from pipeline.models.generation import check_device

        check_device(device)
        network = network.eval().to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.digest = digest
        self.device = device
        self.config = network.config
        self._batch = 1 if device == "cpu" else batch

    @property
    def side(self) -> int:
        """Of its pictures, pixels."""
        return self.config.resolution

    @property
    def tokens(self) -> int:
        """Codes of a picture."""
        return self.config.tokens

    def encode(self, pixels: Iterable[np.ndarray]) -> np.ndarray:
        """Codes int64 (N, tokens) of pictures, float32 (N, 3, H, W) in [0, 1] or one by one."""
        import torch

        found = [np.zeros((0, self.tokens), np.int64)]
        with torch.inference_mode():
            for some in batches(pixels, self._batch):
                batch = torch.from_numpy(np.stack(some))
                batch = batch.to(self.device, memory_format=torch.channels_last)
                found.append(self.network.encode(batch).cpu().numpy())
        return np.concatenate(found)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Pictures uint8 (N, H, W, 3) of codes (N, tokens)."""
        import torch

        from pipeline.eval.vqgan import to_images

        rows = np.asarray(ids, np.int64)
        with torch.inference_mode():
            shown = [
                to_images(self.network.decode(torch.from_numpy(np.stack(some)).to(self.device)))
                for some in batches(rows, self._batch)
            ]
        return np.concatenate(shown) if shown else np.zeros((0, self.side, self.side, 3), np.uint8)


def open_tokenizer(folder: str | Path, *, device: str = "cpu", batch: int = 32) -> Tokenizer:
    """The tokenizer of a folder as `vqgan.load` reads it; raises `ConfigError`, `ModelError`."""
    from pipeline.eval import vqgan

    return Tokenizer(vqgan.load(folder), vqgan.digest(folder), device=device, batch=batch)


class TokenCache:
    """Codes by picture, for one tokenizer and one view; many processes may share its folder."""

    def __init__(
        self, root: str | Path | None, tokenizer: str, view: View, tokens: int = FRAME_TOKENS
    ) -> None:
        """`root` is a folder or a URL, None the folder of caches; `tokenizer` is its digest.

        Reads what is there: `found` and `computed` count pictures, `corrupt` damaged files.
        """
        self._storage = storage_at(str(root or cache_dir() / "tokens"))
        self._folder = f"{tokenizer[:16]}-{view}"
        self._about = {"tokenizer": tokenizer, "view": view, "tokens": str(tokens)}
        self._tokens = tokens
        self._codes: dict[str, np.ndarray] = {}
        self.found = self.computed = self.corrupt = 0
        for file in self._storage.list(self._folder):
            if named := _NAMED.fullmatch(file.name):
                self._take(file.path, named[1])

    def __contains__(self, digest: str) -> bool:
        return digest in self._codes

    def rows(self, digests: Sequence[str]) -> np.ndarray:
        """Codes of known pictures, int64 (N, tokens)."""
        codes = [self._codes[digest] for digest in digests]
        return np.array(codes, np.int64).reshape(-1, self._tokens)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Keep codes by the pictures' digests: one more file. Raises `ValueError` over 16 bits."""
        if not rows:
            return
        codes = np.stack(list(rows.values()))
        if codes.shape[1:] != (self._tokens,) or codes.min() < 0 or codes.max() > 0xFFFF:
            raise ValueError(f"Codes {codes.shape} are not {self._tokens} of 16 bits.")
        codes = codes.astype(np.uint16)
        data = _parquet(
            {
                "picture": pa.array([bytes.fromhex(d) for d in rows], pa.binary(_DIGEST_BYTES)),
                "codes": pa.FixedSizeListArray.from_arrays(codes.ravel(), self._tokens),
            },
            self._about,
        )
        name = hashlib.sha256(data).hexdigest()
        with self._storage.create(f"{self._folder}/{name}.parquet") as file:
            file.write(data)
        self._codes |= dict(zip(rows, codes, strict=True))

    def _take(self, path: str, digest: str) -> None:
        """Read a file, or drop it if its bytes are not those it was written with."""
        try:
            data = self._storage.read(path)
        except FileNotFoundError:  # another process has found it damaged
            return
        if hashlib.sha256(data).hexdigest() == digest:
            table = pq.read_table(io.BytesIO(data))
            about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            if about.items() >= self._about.items():
                rows = table["codes"].combine_chunks().values.to_numpy().reshape(-1, self._tokens)
                self._codes |= dict(
                    zip((d.hex() for d in table["picture"].to_pylist()), rows, strict=True)
                )
                return
        self.corrupt += 1
        self._storage.remove(path)


def encoded(
    pictures: Sequence[Picture],
    encode: Callable[[Iterable[np.ndarray]], np.ndarray],
    cache: TokenCache,
) -> np.ndarray:
    """Codes int64 (N, tokens) of pictures, of which only the unknown ones are opened and encoded.

    A picture that occurs twice is encoded once; what was encoded is kept every so often.
    """
    opens = {digest: open_ for digest, open_ in pictures if digest not in cache}
    cache.found += sum(digest not in opens for digest, _ in pictures)
    for some in batches(opens.items(), _AT_ONCE):
        codes = encode(open_() for _, open_ in some)
        cache.add(dict(zip((digest for digest, _ in some), codes, strict=True)))
        cache.computed += len(some)
    return cache.rows([digest for digest, _ in pictures])


def write_shards(
    folder: str | Path,
    sentences: Iterable[tuple[str, np.ndarray]],
    *,
    tokenizer: str,
    frame_tokens: int = FRAME_TOKENS,
    codes: int = CODES,
    shard_rows: int = 4096,
    layout: str = "image, step, …, image, last step",
) -> list[str]:
    """Visual sentences (key, codes) as Parquet for training LAVMs; returns the files' names.

    `sentences-00000.parquet`, … of `shard_rows` rows each, in the order given. A row has `key`
    (string), `frames` (int32) and `codes` (list of uint16: frames × `frame_tokens`, frame after
    frame, each row by row, without begin, end or padding: concatenate or cut them as the trainer
    likes). The schema's metadata tell `tokenizer` (digest), `frame_tokens`, `codes` (the size of
    the codebook) and `layout` (what the frames are). A sentence that ends in its last step is one
    to learn from: every frame is predicted from those before it. The same sentences give the same
    bytes. Raises `ConfigError` for broken frames and for what is no code.
    """
    storage = storage_at(str(folder))
    about = {"tokenizer": tokenizer, "layout": layout}
    about |= {"frame_tokens": str(frame_tokens), "codes": str(codes)}
    names = []
    for number, some in enumerate(batches(sentences, shard_rows)):
        for key, ids in some:
            _check_sentence(key, ids, frame_tokens, codes)
        data = _parquet(
            {
                "key": pa.array([key for key, _ in some], pa.string()),
                "frames": pa.array([len(ids) // frame_tokens for _, ids in some], pa.int32()),
                "codes": pa.array(
                    [ids.astype(np.uint16) for _, ids in some], pa.list_(pa.uint16())
                ),
            },
            about,
        )
        names.append(f"sentences-{number:05d}.parquet")
        with storage.create(names[-1]) as file:
            file.write(data)
    return names


def batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` values, in order."""
    some: list[Any] = []
    for value in values:
        some.append(value)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _check_sentence(key: str, ids: np.ndarray, frame_tokens: int, codes: int) -> None:
    if ids.ndim != 1 or not len(ids) or len(ids) % frame_tokens:
        raise ConfigError(f"Sentence '{key}' of {ids.shape} is no row of {frame_tokens}s.")
    if ids.min() < 0 or ids.max() >= min(codes, 1 << 16):
        raise ConfigError(f"Sentence '{key}' has {ids.min()}..{ids.max()}, not {codes} codes.")


def _parquet(columns: Mapping[str, Any], about: Mapping[str, str]) -> bytes:
    """A Parquet file's bytes: they follow from what is in it alone."""
    table = pa.table(dict(columns)).replace_schema_metadata(dict(about))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
