"""The vision tower of a Qwen-VL without a loop over pictures and windows.

As loaded, each layer of a tower calls its attention once for every picture and window of a batch,
and each batch works out anew where the patches of its pictures lie. Here a layer attends in one
call (on a GPU, torch's variable-length attention) or in one for each length that occurs, and those
tables are kept by grid. Owns how a tower is switched to that; the results are the same, rounding
aside. The language model and the model's configuration stay as they are, so nothing of it is saved.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from pipeline.errors import ConfigError

_kernel: Any
try:
    from torch.nn.attention.varlen import varlen_attn as _kernel
except ImportError:  # an older torch
    _kernel = None

TOWERS = ("qwen2_vl_vision", "qwen2_5_vl_vision", "qwen3_vl_vision")
"""The `model_type`s of the vision towers that one code serves."""

PACKED = "packed_flash"
"""The registered name. transformers tells the cumulative lengths to an attention whose name holds
'flash'; any other is called for each picture and window apart."""

KEPT_PATCHES = 1 << 20
"""Of how many patches the tables are kept: 67 MB at most, of 14 pictures of 3840 × 3840 or more."""

Grid = tuple[int, int, int]
"""Patches in time, down and across: a row of `image_grid_thw`."""


def batched_vision(model: Any) -> None:
    """Switch the vision tower of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL, also one inside a wrapper.

    Safe to call again. A tower that was loaded with a flash attention keeps it, for it is told the
    lengths already. Raises `ConfigError` where there is no such tower.
    """
    towers = [
        part
        for part in model.modules()
        if isinstance(part, PreTrainedModel) and part.config.model_type in TOWERS
    ]
    if not towers:
        raise ConfigError(f"A {type(model).__name__} has no vision tower of a Qwen-VL.")
    for tower in towers:
        _switch(tower)


class GridTables:
    """Where the patches of a tower's pictures lie, kept by grid: a hook that runs before it.

    Given in place of what the tower would work out, by the names under which transformers takes
    them; the numbers are transformers' own. When the tables of more than `most_patches` would come
    together, all are forgotten and it begins again.
    """

    def __init__(self, most_patches: int = KEPT_PATCHES) -> None:
        self._most = most_patches
        self._kept: dict[tuple[Grid, torch.device], dict[str, torch.Tensor]] = {}
        self._patches = 0

    def __call__(
        self, tower: Any, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The tower's arguments with the tables among them, unless the caller gave some already."""
        grids = given["grid_thw"] if "grid_thw" in given else args[1]
        pictures = [(t, h, w) for t, h, w in grids.tolist()]
        tables = self._tables(tower, pictures, grids.device)
        return args, given if tables.keys() & given.keys() else tables | given

    def _tables(self, tower: Any, pictures: list[Grid], device: torch.device) -> dict[str, Any]:
        parts = [self._of(tower, picture, device) for picture in pictures]
        frames = [high * wide for t, high, wide in pictures for _ in range(t)]
        # A copy, even of one picture's: autograd refuses what was made while the model answered.
        tables: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts])
            for name in parts[0]
            if name not in ("window_index", "window_lengths")
        }
        tables["cu_seqlens"], tables["max_seqlen"] = _bounds(frames, device), max(frames)
        if "window_index" in parts[0]:
            indices = [part["window_index"] for part in parts]
            firsts = accumulate((len(index) for index in indices), initial=0)
            moved = [index + first for index, first in zip(indices, firsts, strict=False)]
            windows = [length for part in parts for length in part["window_lengths"].tolist()]
            tables["window_index"] = torch.cat(moved)
            tables["cu_window_seqlens"] = _bounds(windows, device)
            tables["max_window_seqlen"] = max(windows)
        return tables

    def _of(self, tower: Any, picture: Grid, device: torch.device) -> dict[str, torch.Tensor]:
        """The tables of one picture."""
        found = self._kept.get((picture, device))
        if found is None:
            found = _tables_of(tower, picture, device)
            patches = picture[0] * picture[1] * picture[2]
            if self._patches + patches > self._most:
                self._kept, self._patches = {}, 0
            self._kept[picture, device] = found
            self._patches += patches
        return found


def _switch(tower: Any) -> None:
    """Give a tower's layers the packed attention, and the tower its tables; each only once."""
    if "flash" not in (tower.config._attn_implementation or ""):
        # A configuration of their own: the model's is copied, saved and checked by others, who
        # would look for a package by the name of our attention.
        config = copy.copy(tower.config)
        config._attn_implementation = PACKED
        for block in tower.blocks:
            block.attn.config = config
    if not any(isinstance(hook, GridTables) for hook in tower._forward_pre_hooks.values()):
        tower.register_forward_pre_hook(GridTables(), with_kwargs=True)


def _tables_of(tower: Any, picture: Grid, device: torch.device) -> dict[str, torch.Tensor]:
    """transformers' tables for one picture, on `device`; each has its patches, in time, in front.

    Windows (Qwen2.5-VL) are an order of the merged patches, and their lengths in patches, on the
    CPU. A resampled position (Qwen3-VL) is four places of the learned table and their weights.
    """
    grid, merge = torch.tensor([picture], device=device), tower.spatial_merge_size
    tables = {"position_ids": get_vision_position_ids(grid, merge)}
    if hasattr(tower, "window_size"):
        index, bounds = get_vision_window_index(grid, merge, tower.window_size, tower.patch_size)
        tables["window_index"] = index.to(device)
        tables["window_lengths"] = bounds.diff().cpu()
    if hasattr(tower, "num_grid_per_side"):
        tables["interp_indices"], tables["interp_weights"] = (
            get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=tower.num_grid_per_side,
                mode=tower.interpolation_mode,
                align_corners=tower.interpolation_align_corners,
                spatial_merge_size=merge,
            )
        )
    return tables


def _bounds(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """int32 (N + 1,): where each of N parts begins, and where the last ends."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Each part of a packed row attends to itself: (1, heads, L, width) to (1, L, heads, width).

    `cu_seq_lens_q` is int32 (N + 1,), as `_bounds` makes it, and `max_length_q` the longest part.
    """
    packed = [states[0].transpose(0, 1) for states in (query, key, value)]
    if _has_kernel(query, scaling, dropout):
        mixed = _by_kernel(packed, cu_seq_lens_q, max_length_q)
    else:
        mixed = _by_length(packed, cu_seq_lens_q.diff().tolist(), scaling, dropout)
    return mixed[None], None


def _has_kernel(query: torch.Tensor, scaling: float, dropout: float) -> bool:
    """Whether torch's variable-length attention takes these: on a GPU, in 16 bits, usual scale."""
    width = query.shape[-1]
    return (
        _kernel is not None
        and query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and width % 8 == 0
        and width <= 256
        and math.isclose(scaling, width**-0.5)
        and not dropout
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _by_kernel(packed: Sequence[torch.Tensor], bounds: torch.Tensor, longest: int) -> torch.Tensor:
    """(L, heads, width) of all parts, in one call of torch's variable-length attention.

    The scale is left to it: its first versions take none.
    """
    mixed: torch.Tensor = _kernel(*packed, bounds, bounds, longest, longest)
    return mixed


def _by_length(
    packed: Sequence[torch.Tensor], lengths: list[int], scaling: float, dropout: float
) -> torch.Tensor:
    """(L, heads, width) of all parts, in one batch for each length among them."""
    starts: dict[int, list[int]] = {}
    for start, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
        starts.setdefault(length, []).append(start)
    if len(starts) == 1:
        return _in_batch(packed, lengths[0], scaling, dropout)
    order = torch.cat(
        [(torch.tensor(at)[:, None] + torch.arange(n)).flatten() for n, at in starts.items()]
    ).to(packed[0].device)
    sizes = [length * len(at) for length, at in starts.items()]
    groups = zip(*(part.index_select(0, order).split(sizes) for part in packed), strict=True)
    mixed = [
        _in_batch(group, length, scaling, dropout)
        for length, group in zip(starts, groups, strict=True)
    ]
    return torch.cat(mixed).index_select(0, order.argsort())


def _in_batch(
    packed: Sequence[torch.Tensor], length: int, scaling: float, dropout: float
) -> torch.Tensor:
    """(L, heads, width) of parts that are all `length` long."""
    query, key, value = (part.unflatten(0, (-1, length)).transpose(1, 2) for part in packed)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, scale=scaling
    )
    return mixed.transpose(1, 2).flatten(0, 1)


AttentionInterface.register(PACKED, _attend)
