"""From a picture to its objects' scores through the whole network, beside the published code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.saliency import maps
from pipeline.saliency.u2net import build
from tests.saliency import hashfill

pytestmark = pytest.mark.torch

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens" / "prompting"
SEED, GAIN = 102, 4.5


def filled() -> torch.nn.Module:
    """U²-NetP with the weights that the goldens were computed with."""
    network = build("u2netp").eval()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    weights = hashfill.fill(shapes, SEED, GAIN)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return network


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="no goldens beside the project")
def test_a_picture_gets_the_published_map_and_scores() -> None:
    golden = np.load(GOLDENS / "e2e_saliency.npz")
    expected = json.loads((GOLDENS / "e2e_saliency.json").read_text())
    image = golden["image_u8"]
    size = image.shape[1::-1]
    batch = torch.from_numpy(maps.preprocess(image))[None]
    with torch.inference_mode():
        fused = filled()(batch)[0][0, 0].numpy()
    grid = fused[10::20, 10::20]
    np.testing.assert_allclose(grid, golden["fused_320_grid16"], rtol=0, atol=1e-5)
    prob = maps.to_probability(fused, size)
    np.testing.assert_allclose(prob, golden["prob_map"], rtol=1e-3, atol=1e-9)
    masks = np.zeros((4, *image.shape[:2]), dtype=bool)
    for mask, (y0, x0, y1, x1) in zip(masks, expected["boxes_y0x0y1x1"], strict=True):
        mask[y0:y1, x0:x1] = True
    np.testing.assert_allclose(maps.scores(prob, masks), expected["box_scores"], rtol=1e-4)
    assert prob.sum(dtype=np.float64) == pytest.approx(expected["map_sum"], rel=1e-5)
