"""Outputs of the published highlighting code on random inputs, one format for both places.

A selection lies beside this file and is always there; the whole lies outside the repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

SELECTION = Path(__file__).parent / "goldens" / "highlighting.json"
WHOLE = Path(__file__).parents[3] / "shared" / "goldens" / "c2f.json"


def cases(section: str) -> list[dict[str, Any]]:
    """The cases of `attention`, `cfg` or `perturb`, each with its `arrays` by name (float32)."""
    told: dict[str, dict[str, Any]] = {}
    if WHOLE.is_file():
        with np.load(WHOLE.with_suffix(".npz")) as stored:
            for case in json.loads(WHOLE.read_text("utf-8"))[section]:
                start = f"g/{case['name']}/"
                names = [name for name in stored.files if name.startswith(start)]
                arrays = {name[len(start) :]: torch.from_numpy(stored[name]) for name in names}
                told[case["name"]] = case | {"arrays": arrays}
    for case in json.loads(SELECTION.read_text("utf-8"))[section]:
        arrays = {
            name: torch.tensor(array["values"]).reshape(array["shape"])
            for name, array in case["arrays"].items()
        }
        told[f"{case['name']} (here)"] = case | {"arrays": arrays}
    return [case | {"id": name} for name, case in told.items()]
