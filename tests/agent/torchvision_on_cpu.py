"""Lets a torchvision that was built for CUDA be imported beside a torch that was built without.

For the environment of `make serve-env` only, whose Python imports this file at its start (a `.pth`
line). Declares the operators that torchvision's own library would have brought, at the moment it
asks for them; where that library loads, nothing is done. Knows nothing of who needs torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any

_ASKED = "torchvision._meta_registrations"
"""Imported right after the library was tried; fails where the operators are unknown."""
_kept: list[Any] = []
"""Declarations last as long as these do."""


class _Watcher(MetaPathFinder):
    """Finds no module; acts when the right one is looked for."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: Any = None) -> None:
        if name == _ASKED:
            sys.meta_path.remove(self)
            extension: Any = sys.modules["torchvision.extension"]
            if not extension._has_ops():
                _declare()
                extension._load_library = lambda library: library == "image"


def _declare() -> None:
    """Box suppression by name only; the decoding of pictures by Pillow."""
    from torch import library as operators

    boxes = operators.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        boxes.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    pictures = operators.Library("image", "DEF")
    pictures.define("decode_image(Tensor data, int mode, bool upright=False) -> Tensor")
    pictures.impl("decode_image", _decode, "CPU")
    _kept.extend((boxes, pictures))


def _decode(data: Any, _mode: int, upright: bool = False) -> Any:
    """An encoded picture, uint8 (n,), as RGB, uint8 CHW."""
    import io

    import numpy as np
    import torch
    from PIL import Image, ImageOps

    picture = Image.open(io.BytesIO(data.numpy().tobytes()))
    picture = ImageOps.exif_transpose(picture) if upright else picture
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


sys.meta_path.insert(0, _Watcher())
