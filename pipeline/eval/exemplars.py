"""Which pictures of a pool make the best exemplars for a query: relevant first, then rich.

Relevance is the Jaccard index of a picture's set of VQGAN codes with the query's; richness is the
number of different codes of its last prompt (Chain-of-Focus Prompting, prompt selection). Owns
the index that makes this fast. Knows nothing of pictures, tokenisers or models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

SHORTLIST = 100
"""Pictures compared by richness: the published number."""
LARGEST_CODE = 2**24
"""No codebook has as many entries."""

_FREQUENT = 16
"""A code that more than one in so many pictures holds has a row of flags, not postings."""
_CHUNK = 255
"""Rows of flags that can be added up in one byte."""


def jaccard(pool_codes: ArrayLike | TokenIndex, query_codes: ArrayLike) -> np.ndarray:
    """Jaccard index of the query's set of codes with each picture's, float64 (N,) in [0, 1].

    The pool is int (N, L), or its index where there are many queries; the query is int (L,).
    J(A, B) = |A ∩ B| / |A ∪ B|. Raises `ValueError` for what are no codes.
    """
    index = _indexed(pool_codes)
    tokens = np.unique(_codes(query_codes, 1))
    shared = index.shared(tokens)
    return shared / (index.distinct + len(tokens) - shared)


def richness(codes: ArrayLike) -> int:
    """How many different codes a target has, int (L,)."""
    return len(np.unique(_codes(codes, 1)))


def richnesses(targets: ArrayLike) -> np.ndarray:
    """The richness of each target of a pool, int32 (N,), from codes (N, L)."""
    return _sorted(_codes(targets, 2))[1].sum(1, dtype=np.int32)


def choose(
    pool: ArrayLike | TokenIndex,
    targets: ArrayLike,
    query: ArrayLike,
    shortlist: int = SHORTLIST,
    k: int = 1,
) -> list[int]:
    """The k richest of the `shortlist` pictures most like the query, richest first.

    `pool` as for `jaccard`; `targets` are the codes of the pictures' last prompts, int (N, L), or
    their richness (N,), counted once by `richnesses`. Ties: the lower index among equally like,
    then the more like among equally rich. Fewer than k only where the pool is smaller.
    """
    if not 1 <= k <= shortlist:
        raise ValueError(f"{k} exemplars cannot come from a shortlist of {shortlist}.")
    index, rich = _indexed(pool), np.asarray(targets)
    if len(rich) != len(index):
        raise ValueError(f"{len(rich)} targets are not those of {len(index)} pictures.")
    nearest = most_like(jaccard(index, query), shortlist)
    richest = rich[nearest] if rich.ndim == 1 else richnesses(rich[nearest])
    return nearest[np.argsort(-richest.astype(np.int64), kind="stable")[:k]].tolist()


def most_like(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest scores (N,), highest first, the lower index among equals."""
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    cut = np.partition(scores, -count)[-count]
    above = np.flatnonzero(scores > cut)
    level = np.flatnonzero(scores == cut)[: count - len(above)]
    return np.concatenate([above[np.argsort(-scores[above], kind="stable")], level])


@dataclass(frozen=True, slots=True, eq=False)
class TokenIndex:
    """Which pictures of a pool hold a code, made once for any number of queries.

    Codes that few pictures hold lead to a list of these pictures; the few that many hold have a
    flag for each picture, for adding up rows of bytes is faster than counting long lists.
    """

    distinct: np.ndarray
    """int32 (N,): how many different codes each picture holds."""
    starts: np.ndarray
    """int64 (V + 1,): code t's pictures are `postings[starts[t] : starts[t + 1]]`."""
    postings: np.ndarray
    """int32: ascending numbers of pictures, code by code."""
    slots: np.ndarray
    """int32 (V,): the row of a frequent code in `flags`, else -1."""
    flags: np.ndarray
    """uint8 (F, N): 1 where the picture holds the frequent code."""

    @classmethod
    def build(cls, codes: ArrayLike) -> TokenIndex:
        """The index of a pool's codes, int (N, L), each at least 0; raises `ValueError`."""
        pool = _codes(codes, 2)
        ordered, first = _sorted(pool)
        distinct = first.sum(1, dtype=np.int32)
        pictures, tokens = np.repeat(np.arange(len(pool), dtype=np.int32), distinct), ordered[first]
        holders = np.bincount(tokens)
        frequent = np.flatnonzero(holders * _FREQUENT > len(pool))
        slots = np.full(len(holders), -1, np.int32)
        slots[frequent] = np.arange(len(frequent))
        flags = np.zeros((len(frequent), len(pool)), np.uint8)
        often = slots[tokens] >= 0
        flags[slots[tokens[often]], pictures[often]] = 1
        holders[frequent] = 0
        rare = tokens[~often]
        postings = pictures[~often][np.argsort(rare, kind="stable")]
        return cls(distinct, np.concatenate([[0], np.cumsum(holders)]), postings, slots, flags)

    def __len__(self) -> int:
        """How many pictures the pool holds."""
        return len(self.distinct)

    def shared(self, tokens: np.ndarray) -> np.ndarray:
        """How many of these different codes each picture holds, int (N,)."""
        known = tokens[tokens < len(self.slots)]
        slots = self.slots[known]
        lists = [self.postings[self.starts[t] : self.starts[t + 1]] for t in known[slots < 0]]
        counts = np.bincount(np.concatenate([*lists, self.postings[:0]]), minlength=len(self))
        often = slots[slots >= 0]
        for start in range(0, len(often), _CHUNK):
            total = np.zeros(len(self), np.uint8)
            for slot in often[start : start + _CHUNK]:
                np.add(total, self.flags[slot], out=total)
            counts += total
        return counts


def _indexed(pool: ArrayLike | TokenIndex) -> TokenIndex:
    return pool if isinstance(pool, TokenIndex) else TokenIndex.build(pool)


def _sorted(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(each row's codes in ascending order, which are the first of their kind), both (N, L)."""
    narrow = (
        np.uint16 if codes.max() <= np.iinfo(np.uint16).max else np.int32
    )  # 16 bits go by radix
    ordered = np.sort(codes.astype(narrow), axis=1)
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return ordered, first


def _codes(values: ArrayLike, dimensions: int) -> np.ndarray:
    """Codes as an int array of so many dimensions; raises `ValueError`."""
    codes = np.asarray(values)
    if codes.ndim != dimensions or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(
            f"Codes are whole numbers in {dimensions}-D, not {codes.dtype} {codes.shape}."
        )
    if codes.min() < 0 or codes.max() >= LARGEST_CODE:
        raise ValueError(f"A code is in 0..{LARGEST_CODE - 1}, not {codes.min()}..{codes.max()}.")
    return codes
