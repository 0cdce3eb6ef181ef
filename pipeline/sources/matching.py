"""Which pictures of a set show what another picture shows, whole or in part.

Candidates by hash of the whole and by places whose codes agree; where many of those fit one move
and scale, the two pictures are laid over each other and compared block by block. Knows fingerprints
only, and neither files nor benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sources.fingerprints import Fingerprint
from pipeline.sources.overlay import WHOLE, Lay, agreement, covered, detail, laid_by

AGREE = 0.7
"""Least agreement of two pictures laid over each other (`overlay.agreement`)."""
SMALL, SMALL_AGREE, SMALL_PLACES = 40, 0.85, 7
"""An overlap of fewer pixels of a thumb must agree by this much, and so many places must fit: at so
little detail others look alike."""
LEAST_SHARE = 0.25
"""Of one of the two pictures, that the overlap must cover."""
WHOLE_SHARE = 0.75
"""Of both pictures, from which on the overlap is no crop but the picture."""
_HASH_OFF = 10
"""Bits in which the hashes of the same whole picture may differ, of 64."""
_CODE_OFF = 16
"""The same of the codes of a place, of 128."""
_BANDS, _KEYS = 8, 1 << 16
"""A code is looked up by each of its eight parts of 16 bits."""
_COMMON = 512
"""Codes of a part that so many places share are not looked up: they tell nothing apart."""
_USUAL = 32
"""Nor is a place looked at that is like so many others."""
FEWEST = 4
"""Places that must fit."""
_VOTES, _CELL = 3, 0.25
"""Pairs that must put the middle of the one picture into one cell of the other, and the cell's side
in longer sides of the one."""


@dataclass(frozen=True, slots=True)
class Match:
    """A picture of the set that shows what the other one does."""

    number: int
    """Its place in the set."""
    how: str
    """`exact`: the same bytes; `pixels`: the same pixels; `near`: the same picture, resized,
    compressed, brighter, or cut by a little; `crop`: a part of one is in the other."""
    score: float
    """Agreement of the overlap in [0, 1]."""


class Index:
    """A set of fingerprints, made to be asked."""

    def __init__(self, prints: Sequence[Fingerprint]) -> None:
        self._thumbs = [one.thumb for one in prints]
        self._sizes = [one.size for one in prints]
        self._by_sha256 = _places_of([one.sha256 for one in prints])
        self._by_pixels = _places_of([one.pixels for one in prints])
        self._hashes = np.array([one.hash for one in prints], np.uint64)
        counts = [len(one.codes) for one in prints]
        self._owner = np.repeat(np.arange(len(prints), dtype=np.uint32), counts)
        codes = _joined([one.codes for one in prints], np.zeros((0, 2), np.uint64))
        self._halves = [np.ascontiguousarray(half) for half in codes.T]
        self._at = _joined([one.places for one in prints], np.zeros((0, 3), np.float16))
        self._tables = [_table(keys) for keys in _parts(codes).T]

    def __len__(self) -> int:
        return len(self._sizes)

    def of_bytes(self, sha256: str) -> list[int]:
        """Who has these very bytes."""
        return self._by_sha256.get(sha256, [])

    def matches(self, one: Fingerprint, before: int | None = None) -> list[Match]:
        """Every picture that shows what `one` does, by number; only those `before` a number."""
        most = len(self) if before is None else before
        found = {n: Match(n, "exact", 1.0) for n in self.of_bytes(one.sha256) if n < most}
        for number in self._by_pixels.get(one.pixels, []):
            if number < most:
                found.setdefault(number, Match(number, "pixels", 1.0))
        for number, lay, places in self._candidates(one, most):
            match, known = self._proven(one, number, lay, places), found.get(number)
            if match and (known is None or known.score < match.score):
                found[number] = match
        return [found[number] for number in sorted(found)]

    def _candidates(self, one: Fingerprint, most: int) -> Iterator[tuple[int, Lay, int]]:
        """Who may be it, how `one` would lie on that picture, and how many places say so."""
        off = np.bitwise_count(self._hashes[:most] ^ np.uint64(one.hash))
        yield from ((int(number), WHOLE, 0) for number in np.flatnonzero(off <= _HASH_OFF))
        mine, theirs = self._alike(one, most)
        owners = self._owner[theirs]
        order = np.argsort(owners, kind="stable")
        starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
        for pairs in np.split(order, starts[1:]) if len(order) else ():
            if len(pairs) < FEWEST:
                continue
            owner = int(owners[pairs[0]])
            at = one.places[mine[pairs]].astype(np.float64)
            move = laid_by(at, self._at[theirs[pairs]].astype(np.float64), FEWEST)
            if move is not None:
                yield owner, move.to_shares(one.size, self._sizes[owner]), move.places

    def _alike(self, one: Fingerprint, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a place of `one` and a place of the set whose codes agree."""
        seen: list[np.ndarray] = []
        for (order, starts), keys in zip(self._tables, _parts(one.codes).T, strict=True):
            first, last = starts[keys], starts[keys.astype(np.int64) + 1]
            count = np.where(last - first > _COMMON, 0, last - first)
            mine = np.repeat(np.arange(len(keys)), count)
            within = np.arange(len(mine)) - np.repeat(np.cumsum(count) - count, count)
            theirs = order[np.repeat(first, count) + within]
            off = np.zeros(len(mine), np.uint8)
            for half, code in zip(self._halves, one.codes.T, strict=True):
                off = off + np.bitwise_count(code[mine] ^ half[theirs])
                near = off <= _CODE_OFF
                mine, theirs, off = mine[near], theirs[near], off[near]
            before = self._owner[theirs] < most
            seen.append(mine[before] * len(self._owner) + theirs[before])
        both = np.unique(np.concatenate(seen))
        mine, theirs = np.divmod(both, max(len(self._owner), 1))
        telling = np.bincount(mine, minlength=len(one.codes))[mine] <= _USUAL
        mine, theirs = mine[telling], theirs[telling]
        voted = _voted(one, one.places[mine], self._at[theirs], self._owner[theirs])
        return mine[voted], theirs[voted]

    def _proven(self, one: Fingerprint, number: int, lay: Lay, places: int) -> Match | None:
        """The match, if the two agree where they overlap."""
        shares = covered(lay)
        if max(shares) < LEAST_SHARE:
            return None
        score = agreement(one.thumb, self._thumbs[number], lay)
        if not proven(score, detail(one.thumb, self._thumbs[number], lay), places):
            return None
        return Match(number, "near" if min(shares) >= WHOLE_SHARE else "crop", round(score, 3))


def proven(score: float, pixels: float, places: int) -> bool:
    """Whether an agreement is enough: at `pixels` along the overlap's shorter edge in a thumb, with
    so many places that fit.
    """
    if pixels < SMALL:
        return score >= SMALL_AGREE and places >= SMALL_PLACES
    return score >= AGREE


def _voted(one: Fingerprint, ours: np.ndarray, theirs: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Which pairs of places (N, 3) agree, by owner, with enough others about scale and place.

    A generalised Hough transform (Lowe 2004, §7.3): the scale is known to half an octave, and so
    the middle of the picture, not its corner, to a part of a cell; cells are laid out twice.
    """
    ours, theirs = ours.astype(np.float32), theirs.astype(np.float32)
    step = np.rint(2 * (theirs[:, 2] - ours[:, 2]))
    scale = np.exp2(step / 2)[:, None]
    middle = np.array(one.size) / (2 * max(one.size))
    lands = (theirs[:, :2] - scale * (ours[:, :2] - middle)) / (_CELL * scale)
    enough = np.zeros(len(ours), bool)
    for shift in (0.0, 0.5):
        cell = np.column_stack([owner, step, np.floor(lands + shift)]).astype(np.int64)
        _, which, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
        enough |= count[which.ravel()] >= _VOTES
    return enough


def _parts(codes: np.ndarray) -> np.ndarray:
    """The eight 16-bit parts of each code, uint16 (N, 8)."""
    return np.ascontiguousarray(codes).view(np.uint16).reshape(-1, _BANDS)


def _table(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places sorted by key, and where each key's begin."""
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=_KEYS))])
    return order, starts


def _places_of(digests: Sequence[str]) -> dict[str, list[int]]:
    """Who has each digest; one that is not known is nobody's."""
    found: dict[str, list[int]] = {}
    for number, digest in enumerate(digests):
        if digest:
            found.setdefault(digest, []).append(number)
    return found


def _joined(arrays: Sequence[np.ndarray], empty: np.ndarray) -> np.ndarray:
    return np.concatenate([empty, *arrays])
