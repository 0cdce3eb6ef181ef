"""Saliency as a prior: a function from a picture to where the eye goes, for whoever wants one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

NET = "pocket-u2netp"
Prior = Callable[[Image.Image], np.ndarray]
"""From a picture to float32 HW of its size, not negative, of positive sum."""


def build_prior(net: str = NET, device: str = "cpu") -> Prior:
    """The prior of a saliency network by name or path; raises `ModelError` where there is none."""
    from pipeline.saliency.maps import preprocess, to_probability
    from pipeline.saliency.u2net import Saliency, load

    saliency = Saliency(load(net), device=device)

    def prior(image: Image.Image) -> np.ndarray:
        (fused,) = saliency.predict(preprocess(image)[None])
        return to_probability(fused, image.size)

    return prior
