"""Laws of the VQGAN: the published network to the last code, and its folders read safely."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadImage, ConfigError, ModelError
from tests.eval.tiny_lavm import write_tokenizer
from tests.saliency.hashfill import uniform

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pipeline.eval import vqgan  # noqa: E402
from pipeline.eval.lavm_config import VqganConfig  # noqa: E402
from pipeline.eval.token_cache import VIEWS, crop_image, open_tokenizer, squash_image  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "goldens"
GOLDENS = SHARED / "prompting"
needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="no goldens beside the project")

LAION: dict[str, Any] = {
    "resolution": 256,
    "num_channels": 3,
    "hidden_channels": 128,
    "channel_mult": [1, 2, 2, 4, 6],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "no_attn_mid_block": True,
    "z_channels": 64,
    "num_embeddings": 8192,
    "quantized_embed_dim": 64,
    "dropout": 0.0,
    "resample_with_conv": True,
    "commitment_cost": 0.25,
}
SMALL = LAION | {"hidden_channels": 32, "channel_mult": [1, 1, 2], "num_embeddings": 50}
MEMORY_GB = 2.5
"""What the published sizes take here: weights of 0.6 GB and the largest pictures of the decoder."""
_PIECE = 1 << 16
"""Numbers made at a time: they stay in the processor's cache, which is ten times as fast."""


def available_gb() -> float:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def filled(config: Mapping[str, Any], meta: Mapping[str, Any]) -> vqgan.Vqgan:
    """The network with the goldens' weights: as `hashfill.fill` has them, piece by piece."""
    with torch.device("meta"):
        network = vqgan.build(config).eval()
    state = {}
    for name, like in network.state_dict().items():
        count = prod(like.shape)
        pieces = range(0, count, _PIECE)
        u = np.concatenate([uniform(name, meta["seed"], min(_PIECE, count - n), n) for n in pieces])
        v, one = 2 * u - 1, np.float32(1)
        if name == "quantize.embedding.weight":
            v = np.float32(meta["embedding_amplitude"]) * v
        elif len(like.shape) == 1:
            v = one + np.float32(0.1) * v if name.endswith("weight") else np.float32(0.1) * v
        else:
            v = np.float32(np.sqrt(meta["gain"] / prod(like.shape[1:]))) * v
        state[name] = torch.from_numpy(v.reshape(like.shape))
    network.load_state_dict(state, assign=True)
    return network


def parts(pixels: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """A picture (3, H, W) and the parts of it that large goldens are stored as."""
    return {
        name: pixels[None],
        f"{name}_tl16": pixels[:, :16, :16],
        f"{name}_grid16": pixels[:, 8::16, 8::16],
    }


@pytest.fixture(scope="module")
def small() -> vqgan.Vqgan:
    torch.manual_seed(1)
    network = vqgan.build(SMALL).eval()
    torch.nn.init.normal_(network.quantize.embedding.weight, std=0.3)
    return network


def test_the_published_network_has_its_size() -> None:
    with torch.device("meta"):
        network = vqgan.build(LAION)
    assert len(network.state_dict()) == 277
    assert sum(w.numel() for w in network.parameters()) == 146_244_675
    assert sum(w.numel() for w in network.encoder.parameters()) == 58_693_568
    assert sum(w.numel() for w in network.decoder.parameters()) == 87_018_499
    assert (network.config.tokens, network.config.factor) == (256, 16)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no goldens beside the project")
def test_keys_and_shapes_are_the_originals_in_their_order() -> None:
    known = json.loads((SHARED / "vqgan_keys.json").read_text())
    with torch.device("meta"):
        state = vqgan.build(known["laion_config"]).state_dict()
    assert {name: list(t.shape) for name, t in state.items()} == known["keys"]
    assert list(state) == list(known["keys"])


@needs_goldens
@pytest.mark.parametrize("case", ["tiny", "attn", "attn_nrb1", "laion_full"])
def test_latents_codes_and_pictures_are_the_originals(case: str) -> None:
    if case == "laion_full" and available_gb() < MEMORY_GB:
        pytest.skip(f"the published sizes take {MEMORY_GB} GB, {available_gb():.1f} are free")
    meta = json.loads((GOLDENS / "vqgan_meta.json").read_text())
    told = meta["cases"][case]
    network = filled(told["config"], meta)
    assert len(network.state_dict()) == told["n_keys"]
    with np.load(GOLDENS / "vqgan_hashfill.npz") as npz:
        known = {k.removeprefix(f"{case}_"): npz[k] for k in npz if k.startswith(f"{case}_")}
    pixels = torch.from_numpy(known["input_u8"]).float() / 255
    with torch.inference_mode():
        latent = network.latent(pixels)
        codes = network.codes(latent)[0].numpy()
        shown = network.decode(torch.from_numpy(known["ids"]))
    np.testing.assert_allclose(latent.numpy(), known["latent"], rtol=0, atol=1e-4)
    sure = known["gap"] > 1e-3
    assert sure.any() and (codes[sure] == known["indices"][0][sure]).all()
    found = parts(shown[0].numpy(), "decode")
    if case != "laion_full":  # three more seconds for the same decoder
        recon = network.decode(torch.from_numpy(known["indices"]))
        found |= parts(recon[0].numpy(), "recon")
    seen = [name for name in found if name in known]
    assert seen
    for name in seen:
        np.testing.assert_allclose(found[name], known[name], rtol=0, atol=5e-4)
    levels = vqgan.to_images(shown)[0].astype(int)
    stored = known.get("decode_u8", known.get("decode_u8_tl32")).astype(int)
    assert abs(levels[: len(stored), : len(stored)] - stored).max() <= 1


def test_a_lone_attention_block_of_a_level_is_there_but_does_nothing() -> None:
    config = SMALL | {"attn_resolutions": [64], "num_res_blocks": 1}
    torch.manual_seed(2)
    network = vqgan.build(config).eval()
    pixels = torch.rand(1, 3, 32, 32)
    before, shown = network.latent(pixels), network.paint(torch.ones(1, 64, 8, 8))
    torch.nn.init.normal_(network.encoder.down[2].attn[0].proj_out.weight)
    assert torch.equal(network.latent(pixels), before)
    torch.nn.init.normal_(network.decoder.up[2].attn[0].proj_out.weight)
    assert not torch.equal(network.paint(torch.ones(1, 64, 8, 8)), shown)


def test_without_convolutions_a_picture_is_halved_by_averages_and_doubled_by_repeats() -> None:
    with torch.device("meta"):
        names = vqgan.build(SMALL | {"resample_with_conv": False}).state_dict()
    assert not [name for name in names if "sample" in name]
    shown = vqgan.build(SMALL | {"resample_with_conv": False}).decode(torch.zeros(1, 16).long())
    assert shown.shape == (1, 3, 16, 16)


def test_codes_are_the_nearest_and_the_lower_of_two_equally_near(small: vqgan.Vqgan) -> None:
    latent = torch.randn(2, 64, 3, 5, generator=torch.Generator().manual_seed(0))
    table = small.quantize.embedding.weight
    places = latent.permute(0, 2, 3, 1).reshape(2, 15, 1, 64)
    nearest = (places - table).square().sum(-1).argmin(-1)
    assert torch.equal(small.codes(latent), nearest)
    twice = vqgan.build(SMALL)
    with torch.no_grad():
        twice.quantize.embedding.weight.copy_(torch.arange(50)[:, None] // 2 % 8)
    assert twice.codes(torch.full((1, 64, 2, 2), 3.0)).tolist() == [[6, 6, 6, 6]]


def test_codes_are_row_by_row_and_come_back_as_their_vectors(small: vqgan.Vqgan) -> None:
    ids = torch.arange(15)[None]
    vectors = small.lookup(ids, (3, 5))
    assert vectors.shape == (1, 64, 3, 5)
    assert torch.equal(vectors[0, :, 1, 2], small.quantize.embedding.weight[7])
    assert torch.equal(small.codes(vectors), ids)
    assert small.decode(ids, (3, 5)).shape == (1, 3, 12, 20)
    assert small.encode(torch.rand(2, 3, 12, 20)).shape == (2, 15)


def test_what_does_not_fit_is_refused(small: vqgan.Vqgan) -> None:
    with pytest.raises(ConfigError, match="do not divide by 4"):
        small.encode(torch.rand(1, 3, 16, 18))
    with pytest.raises(ConfigError, match="15 codes do not fill 3 × 3"):
        small.decode(torch.zeros(1, 15).long())
    with pytest.raises(ConfigError, match=r"Codes 0\.\.50 are not in a codebook of 50"):
        small.decode(torch.tensor([[0, 1, 2, 50]]))


def test_a_config_is_closed_and_complete() -> None:
    library = {"_class_name": "VQGANModel", "_version": "0.0.1", "transformers_version": "4.27"}
    assert VqganConfig.of(LAION | library).channel_mult == (1, 2, 2, 4, 6)
    with pytest.raises(ConfigError, match=r"no setting 'z_chanels'.*'z_channels'"):
        VqganConfig.of(LAION | {"z_chanels": 3})
    with pytest.raises(ConfigError, match="lacks 'attn_resolutions'"):
        VqganConfig.of({k: v for k, v in LAION.items() if k != "attn_resolutions"})
    with pytest.raises(ConfigError, match="no multiples of 32"):
        vqgan.build(LAION | {"hidden_channels": 8})
    with pytest.raises(ConfigError, match="no multiple of 16"):
        vqgan.build(LAION | {"resolution": 250})


def test_a_folder_is_read_in_either_format_and_half_precision_becomes_float32(
    tmp_path: Path,
) -> None:
    folder = write_tokenizer(tmp_path / "bin", frame_tokens=16)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    other = tmp_path / "safe"
    other.mkdir()
    (other / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file({n: t.half() for n, t in state.items()}, other / "model.safetensors")
    first, second = vqgan.load(folder), vqgan.load(other)
    assert not first.training and {w.dtype for w in second.parameters()} == {torch.float32}
    for name, tensor in state.items():
        assert torch.equal(first.get_parameter(name), tensor)
        assert torch.equal(second.get_parameter(name), tensor.half().float())
    assert vqgan.digest(folder) == vqgan.digest(folder) != vqgan.digest(other)


def test_weights_of_another_network_are_refused_by_the_first_wrong_name(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, frame_tokens=16)
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    for change, told in (
        ({"encoder.conv_out.weight": None}, "'encoder.conv_out.weight' is missing"),
        ({"quantize.embedding.weight": torch.zeros(8, 16)}, r"\(8, 16\), not \(512, 16\)"),
        ({"ema.weight": torch.zeros(1)}, r"'ema.weight' is \(1,\), not known"),
    ):
        torch.save({n: t for n, t in (state | change).items() if t is not None}, path)
        with pytest.raises(ModelError, match=told):
            vqgan.load(folder)
    path.write_bytes(b"no weights here, sorry")
    with pytest.raises(ModelError, match="cannot be read"):
        vqgan.load(folder)
    path.unlink()
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin"):
        vqgan.load(folder)


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_file_is_read_without_running_what_is_in_it(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "bad", frame_tokens=16)
    torch.save({"encoder": _Harmful(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read"):
        vqgan.load(folder)
    assert not (tmp_path / "ran").exists()


def test_pictures_are_clamped_and_truncated_to_bytes() -> None:
    values = torch.tensor([-0.5, 0.0, 0.5, 0.9999, 1.0, 1.7]).expand(1, 3, 1, 6)
    assert vqgan.to_images(values)[0, 0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


def test_the_two_views_of_a_picture() -> None:
    ramp = np.zeros((300, 700, 3), np.uint8)
    ramp[..., 0] = np.arange(700)[None] * 255 // 699
    image = Image.fromarray(ramp)
    cropped, squashed = crop_image(image), squash_image(image)
    for one in (cropped, squashed):
        assert one.shape == (3, 256, 256) and one.dtype == np.float32
        assert one.min() >= 0 and one.max() <= 1 and not one[1:].any()
    assert squashed[0, 9, 0] < 0.01 and squashed[0, 9, -1] > 0.99
    assert cropped[0, 9, 0] == pytest.approx((700 - 300) / 2 / 699, abs=0.01)
    assert VIEWS["crop"](image, 32).shape == (3, 32, 32)
    assert crop_image(Image.new("L", (40, 256), 7)).shape == (3, 256, 256)
    with pytest.raises(BadImage, match="extreme_aspect"):
        crop_image(Image.new("RGB", (1, 4000)))


@needs_goldens
def test_the_views_are_the_originals_on_a_stored_picture() -> None:
    meta = json.loads((GOLDENS / "preprocess_meta.json").read_text())["images"]["synth_97x131"]
    with np.load(GOLDENS / "preprocess.npz") as npz:
        known = {k.removeprefix("synth_97x131_"): npz[k] for k in npz if k.startswith("synth_97x1")}
    image = Image.fromarray(known["u8"])
    cropped = np.rint(crop_image(image) * 255).astype(np.uint8)
    squashed = np.rint(squash_image(image) * 255).astype(np.uint8).transpose(1, 2, 0)
    assert int(cropped.sum()) == meta["encode_transform_u8_sum"]
    assert int(squashed.sum()) == meta["squash256_bicubic_u8_sum"]
    assert (cropped[:, :8, :8] == known["enc_tl8"]).all()
    assert (cropped[:, -8:, -8:] == known["enc_br8"]).all()
    assert (cropped[:, 8::16, 8::16] == known["enc_grid16"]).all()
    assert (squashed[:8, :8] == known["squash_tl8"]).all()
    assert (squashed[8::16, 8::16] == known["squash_grid16"]).all()


def test_a_pools_codes_do_not_depend_on_how_it_is_handed_over(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(write_tokenizer(tmp_path, frame_tokens=16), batch=2)
    assert (tokenizer.side, tokenizer.tokens) == (64, 16)
    pixels = np.random.default_rng(0).random((5, 3, 64, 64), np.float32)
    together = tokenizer.encode(pixels)
    assert together.shape == (5, 16) and together.dtype == np.int64
    assert (tokenizer.encode(iter(pixels[::-1])) == together[::-1]).all()
    assert len(np.unique(together)) > 5
    assert tokenizer.encode([]).shape == (0, 16)
    shown = tokenizer.decode(together)
    assert shown.shape == (5, 64, 64, 3) and shown.dtype == np.uint8
    assert tokenizer.decode(together[:0]).shape == (0, 64, 64, 3)
