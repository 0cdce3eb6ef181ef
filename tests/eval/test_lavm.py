"""Laws of the LAVMs: the published models to the last code, in whole frames, however batched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.eval.lavm_config import (
    GREEDY,
    VARIANTS,
    Sampling,
    check_capacity,
    from_training,
    translate,
    visual_sentence,
)
from tests.eval.tiny_lavm import llama, write_lavm
from tests.saliency.hashfill import fill, values

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from pipeline.eval import lavm  # noqa: E402

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens" / "prompting"
needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="no goldens beside the project")

TOKENS = 16
CODES = 64


@pytest.fixture(scope="module")
def delvm(tmp_path_factory: pytest.TempPathFactory) -> lavm.Lavm:
    folder = write_lavm(tmp_path_factory.mktemp("delvm"), frame_tokens=TOKENS, codes=CODES)
    return lavm.load(folder)


@pytest.fixture(scope="module")
def lvm(tmp_path_factory: pytest.TempPathFactory) -> lavm.Lavm:
    folder = tmp_path_factory.mktemp("lvm")
    return lavm.load(write_lavm(folder, "lvm", frame_tokens=TOKENS, codes=CODES, seed=1))


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CODES, TOKENS)


def asked(*frames: int) -> np.ndarray:
    """A sentence of these frames."""
    return np.concatenate([frame(seed) for seed in frames])


# What the models are.


@needs_goldens
def test_logits_greedy_codes_and_chances_are_the_originals(tmp_path: Path) -> None:
    meta = json.loads((GOLDENS / "lavm_tiny.json").read_text())
    state = fill(meta["keys"], meta["seed"], meta["gain"], meta["special"])
    torch.save({n: torch.from_numpy(a) for n, a in state.items()}, tmp_path / "pytorch_model.bin")
    config = {**meta["config"], "model_type": "internlm", "frame_tokens": meta["tokens_per_image"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = lavm.load(tmp_path)
    with np.load(GOLDENS / "lavm_tiny.npz") as npz:
        known = dict(npz)
    sentence = known["seq"].reshape(-1)
    with torch.inference_mode():
        logits = model.model(torch.from_numpy(sentence)[None]).logits[0]
    np.testing.assert_allclose(logits.numpy(), known["logits"], rtol=0, atol=2e-5)
    assert (model.predict(sentence, sampling=GREEDY) == known["greedy"][0]).all()
    for name, how in (
        ("p_t01_k50_p075", VARIANTS["delvm"].sampling),
        ("p_t1_k50", VARIANTS["lvm"].sampling),
        ("p_t1_k50_p075", Sampling(1.0, 0.75, 50)),
    ):
        chances, ids = lavm.candidates(logits[-1:], how)
        spread = np.zeros(len(known[name]))
        spread[ids[0]] = chances[0]
        np.testing.assert_allclose(spread, known[name], rtol=0, atol=1e-5)


@needs_goldens
def test_training_weights_are_merged_and_split_as_in_the_original() -> None:
    with np.load(GOLDENS / "lavm_tiny.npz") as npz:
        known = dict(npz)
    state = {
        "embedding.vq_model.quantize.embedding.weight": values("codebook", 611, (96, 8)),
        "embedding.embed_proj.weight": values("embed_proj.weight", 611, (64, 8)),
        "blocks.0.mixer.Wqkv.weight": values("Wqkv.weight", 611, (192, 64)),
        "norm.weight": np.ones(64, np.float32),
        "head.weight": np.ones((96, 64), np.float32),
    }
    told = from_training({name: torch.from_numpy(array) for name, array in state.items()})
    merged = told["model.embed_tokens.weight"].numpy()
    np.testing.assert_allclose(merged, known["merged_embedding"], rtol=0, atol=1e-5)
    for letter in "qkv":
        split = told[f"model.layers.0.self_attn.{letter}_proj.weight"][:, :8]
        assert (split.numpy() == known[f"{letter}_proj"]).all()


def test_a_training_file_is_the_same_model_with_or_without_a_config(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"codes": CODES, "hidden": 128, "heads": 1, "frames": 2048 // TOKENS}
    folder = write_lavm(tmp_path / "hf", frame_tokens=TOKENS, **sizes)
    state = load_file(folder / "model.safetensors")
    trained = {
        "norm.weight": state["model.norm.weight"],
        "head.weight": state["lm_head.weight"],
        "embedding.vq_model.quantize.embedding.weight": torch.eye(CODES),
        "embedding.vq_model.encoder.conv_in.bias": torch.zeros(3),
        "embedding.embed_proj.weight": state["model.embed_tokens.weight"].T.contiguous(),
    }
    names = {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w3", "mlp.down_proj": "mlp.w2"}
    names |= {"input_layernorm": "norm1", "post_attention_layernorm": "norm2"}
    for n in range(2):
        here, there = f"model.layers.{n}", f"blocks.{n}"
        for ours, theirs in names.items():
            trained[f"{there}.{theirs}.weight"] = state[f"{here}.{ours}.weight"]
        for end in ("weight", "bias"):
            split = [state[f"{here}.self_attn.{letter}_proj.{end}"] for letter in "qkv"]
            trained[f"{there}.mixer.Wqkv.{end}"] = torch.cat(split)
            trained[f"{there}.mixer.out_proj.{end}"] = state[f"{here}.self_attn.o_proj.{end}"]
        trained[f"{there}.mixer.rotary_emb.inv_freq"] = torch.ones(64)
    place = tmp_path / "trained"
    place.mkdir()
    torch.save({f"model.{n}": t for n, t in trained.items()}, place / "model_tp0_pp0.pt")
    bare = lavm.load(place, frame_tokens=TOKENS)
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    wanted = lavm.load(folder).predict(asked(1, 2, 3), sampling=GREEDY)
    for model in (bare, lavm.load(place)):
        assert model.config.variant.name == "delvm"
        assert (model.predict(asked(1, 2, 3), sampling=GREEDY) == wanted).all()


def test_configs_are_translated_and_what_is_unknown_is_refused() -> None:
    delvm = {
        "model_type": "internlm", "vocab_size": 8192, "hidden_size": 1024,
        "intermediate_size": 2816, "num_hidden_layers": 22, "num_attention_heads": 8,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "bos_token_id": None,
        "auto_map": {"AutoModel": "modeling_internlm.InternLMForCausalLM"},
    }  # fmt: skip
    told = translate(delvm)
    assert (told.variant.name, told.codes, told.frame_tokens, told.frames) == (
        "delvm",
        8192,
        256,
        8,
    )
    assert told.llama["attention_bias"] and told.llama["rope_parameters"]["rope_theta"] == 10_000
    with torch.device("meta"):
        assert sum(w.numel() for w in llama(delvm).parameters()) == 299_504_640
    large = delvm | {
        "model_type": "llama", "vocab_size": 8292, "hidden_size": 4096, "num_hidden_layers": 32,
        "intermediate_size": 11008, "num_attention_heads": 32, "max_position_embeddings": 4096,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    told = translate(large)
    assert (told.variant.name, told.codes, told.frames) == ("lvm", 8192, 16)
    assert told.llama["eos_token_id"] is None and not told.llama["attention_bias"]
    with torch.device("meta"):
        assert sum(w.numel() for w in llama(large).parameters()) == 6_544_199_680
    assert translate(large, variant="delvm").variant.view == "crop"
    for change, why in (
        ({"model_type": "gpt2"}, "not a 'gpt2'"),
        ({"hidden_size": None}, "lacks 'hidden_size'"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"rope_scaling": {"type": "linear"}}, "scaled rotary"),
        ({"max_position_embeddings": 600}, "600 positions"),
    ):
        with pytest.raises(ConfigError, match=why):
            translate(delvm | change)
    with pytest.raises(ConfigError, match="Did you mean 'delvm'"):
        translate(delvm, variant="delvn")


def test_weights_that_are_not_the_configs_are_refused_by_the_first_wrong_name(
    tmp_path: Path,
) -> None:
    folder = write_lavm(tmp_path, frame_tokens=TOKENS, codes=CODES)
    path = folder / "model.safetensors"
    state = load_file(path)
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(state | frequencies, path)
    assert lavm.load(folder).config.codes == CODES
    save_file({n: t for n, t in state.items() if n != "model.norm.weight"}, path)
    with pytest.raises(ModelError, match=r"'model.norm.weight' is missing, not \(32,\)"):
        lavm.load(folder)
    save_file(state | {"model.layers.2.mlp.up_proj.weight": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"layers.2.mlp.up_proj.weight' is \(1,\), not known"):
        lavm.load(folder)
    path.unlink()
    with pytest.raises(ConfigError, match="no LAVM's folder"):
        lavm.load(folder)


# What they draw.


def test_a_batch_draws_what_each_sentence_draws_alone(delvm: lavm.Lavm) -> None:
    several = [
        *(asked(1, 2, 1, 3, query) for query in (4, 5, 6)),  # one beginning, read once
        *(asked(7, 8, 7, 9, query) for query in (4, 5)),
        asked(10, 11, 10, 12, 4),
        *(asked(query) for query in (13, 14)),
        asked(1, 3, 4),
    ]
    alone = np.stack([delvm.predict(one, sampling=GREEDY) for one in several])
    assert (delvm.predict_batch(several, sampling=GREEDY) == alone).all()
    assert len(np.unique(alone, axis=0)) == len(several)
    backwards = delvm.predict_batch(several[::-1], sampling=GREEDY)
    assert (backwards[::-1] == alone).all()


def test_what_sentences_share_is_read_once_and_changes_nothing(delvm: lavm.Lavm) -> None:
    alike = [asked(1, 2, 1, 3, query) for query in range(20, 24)]
    read: list[int] = []
    hook = delvm.model.model.embed_tokens.register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    )
    try:
        together = delvm.predict_batch(alike, sampling=GREEDY)
    finally:
        hook.remove()
    assert sum(read) == 4 * TOKENS + 4 * TOKENS + 4 * (TOKENS - 1)
    with torch.inference_mode():  # against transformers' own way of drawing, each alone
        for sentence, found in zip(alike, together, strict=True):
            ids = torch.from_numpy(sentence)[None]
            whole = delvm.model.generate(ids, do_sample=False, max_new_tokens=TOKENS)
            assert (whole[0, len(sentence) :].numpy() == found).all()


def test_heads_that_share_keys_are_read_alike(tmp_path: Path) -> None:
    folder = write_lavm(tmp_path, frame_tokens=TOKENS, codes=CODES, hidden=64, heads=4)
    config = json.loads((folder / "config.json").read_text()) | {"num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    narrow = {n: t[:32].clone() for n, t in state.items() if "k_proj" in n or "v_proj" in n}
    save_file(state | narrow, folder / "model.safetensors")
    model = lavm.load(folder)
    alike = [asked(1, 2, query) for query in (3, 4)]
    alone = [model.predict(one, sampling=GREEDY) for one in alike]
    assert (model.predict_batch(alike, sampling=GREEDY) == alone).all()


def test_small_memory_means_smaller_batches_and_nothing_else(
    tmp_path: Path, delvm: lavm.Lavm
) -> None:
    folder = write_lavm(tmp_path, frame_tokens=TOKENS, codes=CODES)
    several = [asked(1, 2, query) for query in range(3, 8)]
    wanted = delvm.predict_batch(several, seed=3)
    for limit in ({"batch": 2}, {"cache_bytes": 1}):
        assert (lavm.load(folder, **limit).predict_batch(several, seed=3) == wanted).all()


def test_draws_follow_from_the_sentences_own_seed(lvm: lavm.Lavm) -> None:
    several = [asked(1, 2, query) for query in (3, 4, 5)]
    found = lvm.predict_batch(several, seed=[7, 8, 9])
    assert (lvm.predict(several[2], seed=9) == found[2]).all()
    assert (lvm.predict_batch(several, seed=[7, 8, 9]) == found).all()
    assert (lvm.predict_batch(several, seed=[6, 6, 6]) != found).any()
    assert (lvm.predict_batch(several, seed=6) == lvm.predict_batch(several, seed=[6] * 3)).all()
    with pytest.raises(ConfigError, match="2 seeds"):
        lvm.predict_batch(several, seed=[1, 2])
    assert lvm.predict_batch([]).shape == (0, TOKENS)


def test_draws_have_the_chances_of_the_filters() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0]])
    how = Sampling(temperature=1.0, top_p=0.85, top_k=3)
    chances, ids = lavm.candidates(logits, how)
    first = np.exp([3.0, 2.0]) / np.exp([3.0, 2.0]).sum()  # the two best hold more than 0.85
    assert ids[0, :2].tolist() == [1, 3] and chances[0, 2] == 0
    assert chances[0, :2].numpy() == pytest.approx(first, abs=1e-6)
    uniform = torch.linspace(0, 1 - 1e-9, 10_001, dtype=torch.float64)
    drawn = lavm.draw(logits.expand(len(uniform), -1), how, uniform)
    assert float((drawn == 1).float().mean()) == pytest.approx(first[0], abs=1e-3)
    assert set(drawn.tolist()) == {1, 3}
    assert lavm.draw(logits, GREEDY, uniform[:1]).tolist() == [1]
    with pytest.raises(ConfigError, match="top_p"):
        Sampling(1.0, 0.0)


def stubborn(folder: Path, favourite: int) -> Path:
    """An LVM that always finds the ids from `favourite` on the likeliest, the first most of all."""
    write_lavm(folder, "lvm", frame_tokens=TOKENS, codes=CODES)
    state = load_file(folder / "model.safetensors")
    for name, tensor in state.items():
        if "o_proj" in name or "down_proj" in name:
            tensor.zero_()
    state["model.embed_tokens.weight"].fill_(1)
    state["lm_head.weight"].zero_()
    state["lm_head.weight"][favourite] = 2
    state["lm_head.weight"][favourite + 1 :] = 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_code_2_is_a_code_and_ends_nothing(tmp_path: Path) -> None:
    folder = stubborn(tmp_path, 2)
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 2
    model = lavm.load(folder)
    assert model.predict(asked(1, 2, 3), sampling=GREEDY).tolist() == [2] * TOKENS
    ids = torch.from_numpy(asked(1))[None]
    whole = model.model.generate(ids, do_sample=False, max_new_tokens=TOKENS)
    assert whole.shape[1] == 2 * TOKENS
    stopped = model.model.generate(ids, do_sample=False, max_new_tokens=TOKENS, eos_token_id=2)
    assert stopped.shape[1] == TOKENS + 1  # as the published config would have it


def test_ids_that_are_no_codes_are_never_drawn(tmp_path: Path) -> None:
    model = lavm.load(stubborn(tmp_path, CODES))
    drawn = model.predict_batch([asked(1, 2, 3)] * 4, seed=[1, 2, 3, 4])
    assert model.config.llama["vocab_size"] == CODES + 100
    assert 0 <= drawn.min() <= drawn.max() < CODES and len(np.unique(drawn)) > 10


# What is asked of them.


def test_a_sentence_is_each_image_before_each_of_its_steps_and_then_the_query() -> None:
    found = visual_sentence([([1, 1], [[2, 2], [3, 3]]), ([4, 4], [[5, 5]])], [6, 6])
    assert found.dtype == np.int64
    assert found.tolist() == [1, 1, 2, 2, 1, 1, 3, 3, 4, 4, 5, 5, 6, 6]
    assert lavm.visual_sentence is visual_sentence


def test_a_sentence_too_many_is_refused_with_what_would_fit(
    delvm: lavm.Lavm, lvm: lavm.Lavm
) -> None:
    three = (frame(0), [frame(1), frame(2), frame(3)])
    assert len(visual_sentence([three], frame(9), frames=8)) == 7 * TOKENS
    with pytest.raises(ConfigError, match=r"10 frames .* the model's 8.*at most 3 steps"):
        visual_sentence([(frame(0), [frame(n) for n in range(4)])], frame(9), frames=8)
    with pytest.raises(ConfigError, match="10 frames"):
        check_capacity(exemplars=2, levels=2, frames=8)
    check_capacity(exemplars=1, levels=3, frames=8)
    with pytest.raises(ConfigError, match=r"9 frames .* the model's 8"):
        delvm.predict(asked(*range(8)))
    assert len(delvm.predict(asked(*range(7)))) == TOKENS
    for broken in ([], [(frame(0), [])], [(frame(0), [frame(1)[1:]])]):
        with pytest.raises(ConfigError):
            visual_sentence(broken, frame(9))
    assert lvm.config.frames == 16


def test_an_lvm_keeps_the_last_frames_that_leave_room_for_the_answer(lvm: lavm.Lavm) -> None:
    long = asked(*range(21))
    kept = lvm.predict(long[-15 * TOKENS :], sampling=GREEDY)
    assert (lvm.predict(long, sampling=GREEDY) == kept).all()


def test_what_is_no_row_of_frames_or_no_code_is_refused(delvm: lavm.Lavm) -> None:
    with pytest.raises(ConfigError, match="no row of 16s"):
        delvm.predict(asked(1, 2)[:-1])
    with pytest.raises(ConfigError, match=r"Codes .* are not .*'s 64"):
        delvm.predict(np.full(TOKENS, CODES))


def test_published_sampling_is_what_is_drawn_with_by_default(
    delvm: lavm.Lavm, lvm: lavm.Lavm
) -> None:
    assert VARIANTS["delvm"].sampling == Sampling(0.1, 0.75, 50)
    assert VARIANTS["lvm"].sampling == Sampling(1.0, 1.0, 50)
    assert (VARIANTS["delvm"].view, VARIANTS["lvm"].view) == ("crop", "squash")
    for model in (delvm, lvm):
        own = model.predict(asked(1, 2, 3), seed=4)
        published = model.config.variant.sampling
        assert (model.predict(asked(1, 2, 3), seed=4, sampling=published) == own).all()
