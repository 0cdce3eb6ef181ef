"""Laws of the segmenter: frames, checkpoints, the automatic search."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.errors import ConfigError, ModelError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pipeline.models import sam, sam_masks, weights  # noqa: E402

PLANTED = {
    "red": ((225, 30, 30), (20, 30, 80, 90)),
    "green": ((30, 160, 60), (110, 40, 190, 100)),
    "blue": ((30, 60, 220), (60, 130, 130, 210)),
    "yellow": ((240, 220, 40), (160, 140, 230, 200)),
}


@pytest.fixture(scope="module")
def pocket() -> sam.Segmenter:
    return sam.load("pocket")


@pytest.fixture(scope="module")
def untrained() -> sam.Segmenter:
    torch.manual_seed(0)
    return sam.Segmenter(sam.build("pocket"), "pocket", "")


@pytest.fixture(scope="module")
def planted() -> np.ndarray:
    """Four plain things on a grey wall with a little grain, uint8 (240, 256, 3)."""
    grain = np.random.default_rng(0).normal(0, 4, (240, 256, 3))
    picture = Image.fromarray(np.clip(150 + grain, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for color, (x0, y0, x1, y1) in PLANTED.values():
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=color)
    return np.asarray(picture)


def _box_iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return shared / (areas - shared)


def test_importing_leaves_no_torchvision_behind() -> None:
    code = (
        "import sys, importlib.util as u\n"
        "real = u.find_spec('torchvision') is not None\n"
        "from pipeline.models import sam\n"
        "sam.build('pocket')\n"
        "from pipeline.models.torchvision_standin import torchvision_imports\n"
        "names = [n for n in sys.modules if n.partition('.')[0] == 'torchvision']\n"
        "assert not names or (real and torchvision_imports()), names\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_of_models_imports_no_torch() -> None:
    code = "import sys, pipeline.models, pipeline.models.weights\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_embedding_is_the_same_whenever_it_is_computed(
    pocket: sam.Segmenter, planted: np.ndarray
) -> None:
    first = pocket.embed(planted)
    pocket.embed(planted[:100])
    again = sam.load("pocket").embed(planted)
    assert torch.equal(first.features, again.features)
    one = pocket.predict(first, points=[(50, 60)])
    other = pocket.predict(again, points=[(50, 60)])
    assert np.array_equal(one.logits, other.logits) and np.array_equal(one.ious, other.ious)


def test_prompts_are_independent(pocket: sam.Segmenter, planted: np.ndarray) -> None:
    embedding = pocket.embed(planted)
    points = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for _, b in PLANTED.values()]
    together = pocket.predict(embedding, points=points)
    assert together.logits.shape == (4, 1, 64, 64) and together.ious.shape == (4, 1)
    for i, point in enumerate(points):
        alone = pocket.predict(embedding, points=[point])
        assert np.allclose(together.logits[i], alone.logits[0], atol=1e-3)
    assert pocket.predict(embedding, points=points, multimask=True).ious.shape == (4, 3)


def test_points_and_boxes_find_planted_things(pocket: sam.Segmenter, planted: np.ndarray) -> None:
    embedding = pocket.embed(planted)
    for _, box in PLANTED.values():
        center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        for prompt in ({"points": [center]}, {"boxes": [box]}):
            logits = pocket.predict(embedding, **prompt).logits[:, 0]
            mask = pocket.masks(embedding, logits)[0]
            truth = np.zeros_like(mask)
            truth[box[1] : box[3], box[0] : box[2]] = True
            assert (mask & truth).sum() / (mask | truth).sum() > 0.8
            found = pocket.boxes(embedding, logits)[0]
            assert np.abs(found - box).max() < 5


def test_the_automatic_search_finds_what_was_planted(
    pocket: sam.Segmenter, planted: np.ndarray
) -> None:
    found = pocket.automatic(planted)
    for _, box in PLANTED.values():
        assert max(_box_iou(tuple(one.box.as_list()), box) for one in found) > 0.8
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert one.mask.shape == (240, 256) and one.mask.dtype == bool and one.mask.any()
    chosen = pocket.automatic(planted, points=[(50, 60)], limit=1)
    assert len(chosen) == 1 and chosen[0].point == (50, 60)
    assert pocket.automatic(planted, min_score=2.0) == []


def test_where_an_image_is_in_the_padded_square(untrained: sam.Segmenter) -> None:
    for height, width in ((50, 100), (300, 90), (256, 256), (1, 7), (900, 1)):
        embedding = untrained.embed(np.zeros((height, width, 3), np.uint8))
        assert max(embedding.square.inner) == 256
        assert embedding.features.shape == (1, 64, 16, 16)
        logits = np.full((1, 64, 64), 5, np.float32)
        masks = untrained.masks(embedding, logits)
        assert masks.shape == (1, height, width) and masks.all()
        box = untrained.boxes(embedding, logits)[0]
        assert np.allclose(box, (0, 0, width, height), atol=max(height, width) / 128)


def test_boxes_from_the_map_agree_with_the_enlarged_mask(untrained: sam.Segmenter) -> None:
    embedding = untrained.embed(np.zeros((600, 800, 3), np.uint8))
    ys, xs = np.mgrid[:64, :64] + 0.5
    for cx, cy, r in ((30, 20, 9.3), (12.2, 30, 4.6), (40.7, 24.1, 12)):
        logits = (r - np.hypot(xs - cx, ys - cy)).astype(np.float32)[None]
        mask = sam_masks.masks_of(torch.from_numpy(logits), embedding.square)[0].numpy()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        exact = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(untrained.boxes(embedding, logits)[0] - exact).max() < 3


def _cells(truth: np.ndarray) -> np.ndarray:
    """A coarse map of a mask (bool HW of the square), float32 (1, 64, 64)."""
    shares = truth.reshape(64, truth.shape[0] // 64, 64, -1).mean((1, 3))
    return np.log((shares + 0.02) / (1.02 - shares)).astype(np.float32)[None]


@pytest.mark.parametrize("side", [256, 768])
def test_a_coarse_map_is_drawn_to_the_edge_that_the_picture_shows(
    untrained: sam.Segmenter, side: int
) -> None:
    ys, xs = (np.mgrid[:side, :side] + 0.5) * 256 / side
    truth = np.abs(xs - 90) + np.abs(ys - 120) < 31
    grain = np.random.default_rng(0).normal(0, 6, (side, side, 3))
    colored = np.where(truth[..., None], (200, 60, 40), (90, 110, 120)) + grain
    embedding = untrained.embed(np.clip(colored, 0, 255).astype(np.uint8))
    logits = _cells(np.hypot(xs - 90, ys - 120) < 25)  # rounder than it is
    found = untrained.masks(embedding, logits)[0]
    plain = sam_masks.masks_of(torch.from_numpy(logits), embedding.square)[0].numpy()
    iou = (found & truth).sum() / (found | truth).sum()
    before = (plain & truth).sum() / (plain | truth).sum()
    assert iou > 0.93 and 1 - iou < (1 - before) / 2


def test_a_guided_mask_stays_the_map_where_the_picture_shows_no_edge(
    untrained: sam.Segmenter,
) -> None:
    embedding = untrained.embed(np.full((200, 256, 3), 128, np.uint8))
    truth = np.zeros((256, 256), bool)
    truth[40:120, 60:180] = True
    found = untrained.masks(embedding, _cells(truth))[0]
    assert (found & truth[:200]).sum() / (found | truth[:200]).sum() > 0.95


def test_a_map_without_a_mask_has_no_box(untrained: sam.Segmenter) -> None:
    embedding = untrained.embed(np.zeros((64, 64, 3), np.uint8))
    assert np.isnan(untrained.boxes(embedding, np.full((1, 64, 64), -1.0, np.float32))).all()


def test_distinct_masks_keep_the_best_of_each_cluster() -> None:
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, :4, :7], masks[2, 4:], masks[3] = True, True, True, True
    scores = torch.tensor([0.5, 0.9, 0.6, 0.7])
    assert sam_masks.distinct(masks, scores, 0.6) == [1, 3, 2]
    assert sam_masks.distinct(masks, scores, 0.4) == [1, 2]
    iou = sam_masks.pairwise_iou(masks)
    assert torch.allclose(iou, iou.T) and torch.allclose(iou.diagonal(), torch.ones(4))


@pytest.mark.parametrize(
    "prompts",
    [{}, {"points": []}, {"points": [(1, 2, 3)]}, {"boxes": [(1, 2)]}, {"points": [(1, np.nan)]}],
)
def test_prompts_that_are_none_are_refused(untrained: sam.Segmenter, prompts: dict) -> None:
    embedding = untrained.embed(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ConfigError):
        untrained.predict(embedding, **prompts)


def test_an_image_is_rgb_bytes(untrained: sam.Segmenter) -> None:
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ConfigError, match="uint8"):
            untrained.embed(wrong)


def test_a_checkpoint_is_loaded_from_either_format(
    untrained: sam.Segmenter, planted: np.ndarray, tmp_path: Path
) -> None:
    state = untrained.model.state_dict()
    torch.save(state, tmp_path / "pocket.pth")
    save_file(state, tmp_path / "file.safetensors", {"variant": "pocket"})
    expected = untrained.embed(planted).features
    for name in ("pocket.pth", "file.safetensors"):
        path = tmp_path / name
        loaded = sam.load(path)
        assert torch.equal(loaded.embed(planted).features, expected)
        assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": Path}, tmp_path / "pocket.pth")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        sam.load(tmp_path / "pocket.pth")


def test_a_file_with_a_pinned_name_and_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / weights.CHECKPOINTS["vit_b"].file
    path.write_bytes(b"not the published file")
    with pytest.raises(ModelError, match="SHA-256"):
        sam.load(path)


def test_missing_and_unknown_checkpoints_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrained: sam.Segmenter
) -> None:
    monkeypatch.setenv("COFPIPE_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="models pull vit_b"):
        sam.load("vit_b")
    with pytest.raises(ModelError, match="Give a path, or one of"):
        sam.load("vit_x")
    with pytest.raises(ConfigError, match="pocket"):
        sam.build("poket")
    save_file(untrained.model.state_dict(), tmp_path / "some.safetensors")
    with pytest.raises(ConfigError, match="which SAM"):
        sam.load(tmp_path / "some.safetensors")
    with pytest.raises(ModelError, match="not a 'vit_b'"):
        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"variant": "pocket"})
        sam.load(tmp_path / "x.safetensors", "vit_b")
