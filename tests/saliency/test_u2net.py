"""Laws of U²-Net: it is the published network to the last digit, and reads its files safely."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError
from tests.saliency.hashfill import fill, values

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pipeline.models import weights  # noqa: E402
from pipeline.saliency.u2net import DEVIATION, MEAN, Saliency, U2Net, build, load, prepared  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "goldens"
GOLDENS = SHARED / "prompting"
SEEDS = {"u2net": 101, "u2netp": 102}
GAIN = 4.5
PARAMETERS = {"u2net": 44_009_869, "u2netp": 1_131_181}
BUFFERS = {"u2net": 28_912, "u2netp": 5_808}
MEANS = {
    "u2net": [0.529483, 0.31542, 0.434168, 0.643587, 0.440127, 0.867662, 0.327534],
    "u2netp": [0.907579, 0.352647, 0.037138, 0.762162, 0.841515, 0.75709, 0.665303],
}
"""Of the seven maps of the 64 × 64 input, by the original network."""
LARGEST = {
    "u2net": [0.933549, 0.934235, 0.783572, 0.90979, 0.806252, 0.980185, 0.656043],
    "u2netp": [0.995984, 0.806336, 0.653977, 0.964481, 0.976047, 0.943926, 0.886159],
}


def filled(variant: str) -> U2Net:
    network = build(variant).eval()
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    state = fill(shapes, SEEDS[variant], GAIN)
    network.load_state_dict({n: torch.from_numpy(np.asarray(a)) for n, a in state.items()})
    return network


@pytest.fixture(scope="module", params=["u2netp", "u2net"])
def known(request: pytest.FixtureRequest) -> tuple[str, U2Net]:
    return request.param, filled(request.param)


@pytest.fixture(scope="module")
def small() -> U2Net:
    torch.manual_seed(3)
    network = build("u2netp").eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network


def golden_input(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(
        2 * values(f"u2net_input_{height}x{width}", seed, (1, 3, height, width))
    )


def maps_of(network: U2Net, pixels: torch.Tensor) -> list[np.ndarray]:
    with torch.inference_mode():
        return [found[0, 0].numpy() for found in network(pixels)]


def assert_golden(found: list[np.ndarray], tag: str, file: str) -> None:
    """All maps within 1e-5 of the stored ones, whole or in parts."""
    height, width = found[0].shape
    grid = (slice(height // 32, None, height // 16), slice(width // 32, None, width // 16))
    with np.load(GOLDENS / file) as stored:
        for number, one in enumerate(found):
            name = f"{tag}_{height}x{width}_out{number}"
            parts = {
                name: one,
                f"{name}_tl16": one[:16, :16],
                f"{name}_grid16": one[grid][:16, :16],
            }
            there = {part: values for part, values in parts.items() if part in stored}
            assert there
            for part, values_ in there.items():
                np.testing.assert_allclose(values_, stored[part], rtol=0, atol=1e-5)


def test_sizes_are_those_of_the_published_networks(known: tuple[str, U2Net]) -> None:
    variant, network = known
    state = network.state_dict()
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(state) == 798
    assert sum(w.numel() for w in network.parameters()) == PARAMETERS[variant]
    assert sum(b.numel() for b in network.buffers()) == BUFFERS[variant]
    assert len(counters) == 112


@pytest.mark.skipif(not SHARED.is_dir(), reason="no goldens beside the project")
def test_keys_and_shapes_are_the_originals_in_their_order(known: tuple[str, U2Net]) -> None:
    variant, network = known
    keys = json.loads((SHARED / f"{variant}_keys.json").read_text())
    state = network.state_dict()
    assert list(state) == list(keys)
    assert {name: list(t.shape) for name, t in state.items()} == {
        name: entry["shape"] for name, entry in keys.items()
    }


def test_maps_are_those_of_the_original(known: tuple[str, U2Net]) -> None:
    variant, network = known
    found = maps_of(network, golden_input(64, 64, SEEDS[variant]))
    assert [float(one.mean()) for one in found] == pytest.approx(MEANS[variant], abs=1e-5)
    assert [float(one.max()) for one in found] == pytest.approx(LARGEST[variant], abs=1e-5)


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="no goldens beside the project")
@pytest.mark.parametrize("size", [(64, 64), (75, 101), (320, 320)])
def test_maps_of_every_size_are_within_a_hundred_thousandth_of_the_originals(
    known: tuple[str, U2Net], size: tuple[int, int]
) -> None:
    variant, network = known
    found = maps_of(network, golden_input(*size, SEEDS[variant]))
    assert_golden(found, f"{variant}_hash", f"{variant}_hashfill_outputs.npz")


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="no goldens beside the project")
@pytest.mark.parametrize("size", [(64, 64), (75, 101)])
def test_a_stored_checkpoint_gives_the_originals_maps(size: tuple[int, int]) -> None:
    network = load(GOLDENS / "u2netp_random.safetensors")
    found = maps_of(network, golden_input(*size, 102))
    assert_golden(found, "u2netp_random", "u2netp_random_outputs.npz")


def test_maps_are_the_sigmoid_of_the_logits_at_any_size(small: U2Net) -> None:
    pixels = torch.randn(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        told, found = small.logits(pixels), small(pixels)
    assert len(found) == 7 and {tuple(one.shape) for one in found} == {(2, 1, 33, 47)}
    for logit, one in zip(told, found, strict=True):
        assert torch.equal(torch.sigmoid(logit), one)


def test_a_file_with_a_prefix_and_without_counters_is_the_same_network(
    small: U2Net, tmp_path: Path
) -> None:
    state = {
        f"module.{name}": tensor
        for name, tensor in small.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "u2netp.pth")
    read = load(tmp_path / "u2netp.pth")
    assert not read.training
    for name, tensor in small.named_parameters():
        assert torch.equal(read.get_parameter(name), tensor)


def test_half_precision_files_become_a_float32_network(small: U2Net, tmp_path: Path) -> None:
    state = {n: t.half() if t.is_floating_point() else t for n, t in small.state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    read = load(tmp_path / "half.safetensors")
    assert {w.dtype for w in read.parameters()} == {torch.float32}
    assert torch.equal(read.outconv.weight, small.outconv.weight.half().float())


def test_the_variant_is_told_by_the_file(small: U2Net, tmp_path: Path) -> None:
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    assert load(tmp_path / "small.safetensors").side6.weight.shape[1] == 64
    with pytest.raises(ModelError, match="weights of u2net\\."):
        load(tmp_path / "small.safetensors", "u2net")
    wide = {"stage1.rebnconv1.conv_s1.weight": torch.zeros(32, 64, 3, 3)}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match="weights of u2net\\."):
        load(tmp_path / "wide.safetensors")


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_file_is_read_without_running_what_is_in_it(tmp_path: Path) -> None:
    torch.save({"stage1": _Harmful(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "onnx"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, suffix: str) -> None:
    for name, content in (("text", b"no weights here, sorry"), ("empty", b"")):
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            load(path)


def test_an_incomplete_file_and_one_that_is_missing_are_refused(
    small: U2Net, tmp_path: Path
) -> None:
    state = small.state_dict()
    del state["stage3.rebnconv2.conv_s1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match="does not hold the weights of u2netp"):
        load(tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match="no checkpoint"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="no network"):
        build("u3net")


def test_the_authors_file_is_found_where_their_code_keeps_it(
    small: U2Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COFPIPE_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"models pull u2netp.*saved_models/u2netp/u2netp\.pth"):
        load("u2netp")
    placed = tmp_path / "saved_models" / "u2netp" / "u2netp.pth"
    placed.parent.mkdir(parents=True)
    torch.save(small.state_dict(), placed)
    assert weights.find("u2netp") == placed
    assert torch.equal(load("u2netp").outconv.weight, small.outconv.weight)
    assert [x.where for x in weights.list_checkpoints() if x.name == "u2netp"] == [placed]


def test_what_a_picture_gets_does_not_depend_on_the_others(small: U2Net) -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    saliency = Saliency(small)
    together = saliency.predict(pixels)
    assert together.shape == (3, 64, 64) and together.dtype == np.float32
    for number in (2, 0, 1):
        assert np.array_equal(saliency.predict(pixels[number : number + 1])[0], together[number])
    np.testing.assert_allclose(
        together[0], maps_of(small, torch.from_numpy(pixels[:1]))[0], atol=1e-5
    )
    assert saliency.predict(pixels[:0]).shape == (0, 64, 64)


def test_preparing_divides_by_the_largest_value_and_standardises() -> None:
    picture = np.full((4, 5, 3), 100, np.uint8)
    picture[0, 0, 1] = 200
    ready = prepared(picture)
    assert ready.shape == (3, 4, 5) and ready.dtype == np.float32
    assert ready[0, 2, 2] == pytest.approx((0.5 - 0.485) / 0.229, abs=1e-6)
    assert ready[1, 0, 0] == pytest.approx((1.0 - 0.456) / 0.224, abs=1e-6)
    black = prepared(np.zeros((2, 2, 3), np.uint8))[:, 0, 0]
    assert black == pytest.approx(-np.array(MEAN) / DEVIATION, abs=1e-6)
