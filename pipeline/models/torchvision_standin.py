"""`import segment_anything` where torchvision does not load.

That package needs four small functions of torchvision at import time, and only for its own
predictor and mask generator, which are not used here. The stand-in is in `sys.modules` only while
the package is imported, so that nobody else takes it for the real one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

_NEEDED = {
    "torchvision": (),
    "torchvision.ops": (),
    "torchvision.ops.boxes": ("batched_nms", "box_area"),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("resize", "to_pil_image"),
}


def import_segment_anything() -> ModuleType:
    """The real package, with the real torchvision where that one imports."""
    if "segment_anything" in sys.modules:
        return sys.modules["segment_anything"]
    if torchvision_imports():
        return importlib.import_module("segment_anything")
    with standing_in():
        return importlib.import_module("segment_anything")


def torchvision_imports() -> bool:
    """Whether the installed torchvision has what is needed; a broken one leaves no trace."""
    before = set(sys.modules)
    try:
        for name in _NEEDED:
            importlib.import_module(name)
    except (ImportError, RuntimeError, OSError):
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torchvision":
                del sys.modules[name]
        return False
    return True


@contextmanager
def standing_in() -> Iterator[None]:
    """Put the stand-in where torchvision would be, and take it away again."""
    names = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    hidden = {name: sys.modules.pop(name) for name in names}
    for name, functions in _NEEDED.items():
        module = ModuleType(name)
        for function in functions:
            setattr(module, function, _refuse)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in _NEEDED:
            del sys.modules[name]
        sys.modules.update(hidden)


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise RuntimeError("This needs torchvision, which does not load here.")
