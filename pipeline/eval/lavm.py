"""Large autoregressive vision models (LAVMs): a visual sentence goes in, the next frame comes out.

Owns the model's weights, and how frames of codes are drawn: many sentences at once, what they have
in common read once. DeLVM and LVM both run as transformers' Llama; foreign code never does. Knows
nothing of pictures: codes in, codes out.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pipeline.errors import ConfigError
from pipeline.eval.lavm_config import (
    LavmConfig,
    Sampling,
    from_training,
    read_json,
    too_long,
    training_config,
    translate,
)
from pipeline.eval.lavm_config import visual_sentence as visual_sentence
from pipeline.eval.vqgan import check_state, read_state
from pipeline.models.generation import check_device, dtype_of, loading, writing
from pipeline.models.shared_prefix import attending_to, cache_in
from pipeline.models.weights import sha256_of

FILES = ("model*.safetensors", "pytorch_model*.bin", "model_tp*.pt", "*.pt")
"""Names of a folder's weights: the first kind that is there is read. The last two are DeLVM's own,
from training."""
BATCH = 32
CACHE_BYTES = 4 << 30
"""Keys and values of a batch take no more than this; at least one sentence is always read."""

_READ_AT_ONCE = 2048
"""Tokens of several sentences that go through the model together before anything is drawn."""
_TRAINED = "blocks.0.mixer.Wqkv.weight"


def load(
    folder: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int = 1,
    variant: str | None = None,
    frame_tokens: int | None = None,
    batch: int = BATCH,
    cache_bytes: int = CACHE_BYTES,
) -> Lavm:
    """The model of a folder: DeLVM's or LVM's as published, or DeLVM's training file.

    `dtype` is float32 on a CPU and elsewhere the variant's, unless it is given; `variant` and
    `frame_tokens` as for `lavm_config.translate`. Raises `ConfigError` for a folder that is no
    LAVM's, `ModelError` for weights that are not the config's.
    """
    place = Path(folder).expanduser()
    check_device(device)
    torch.set_num_threads(threads)
    files = weights_in(place)
    state = {name: tensor for path in files for name, tensor in read_state(path).items()}
    if f"model.{_TRAINED}" in state:
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    trained = _TRAINED in state
    if trained and not (place / "config.json").is_file():
        values = training_config({name: tuple(tensor.shape) for name, tensor in state.items()})
    else:
        values = read_json(place)
    config = translate(values, variant=variant, frame_tokens=frame_tokens)
    wanted = dtype_of(dtype or ("float32" if device == "cpu" else config.variant.dtype))
    with loading(str(place), "a LAVM"):
        model = _llama(config, from_training(state) if trained else state, wanted, files[0])
    name = f"{place.resolve().name}@{digest(place)[:12]}"
    return Lavm(model.to(device), config, name, batch=batch, cache_bytes=cache_bytes)


def digest(folder: str | Path) -> str:
    """SHA-256 (hex) of a folder's config and weights."""
    place = Path(folder).expanduser()
    told = [path for path in (place / "config.json", *weights_in(place)) if path.is_file()]
    return hashlib.sha256("\n".join(map(sha256_of, told)).encode()).hexdigest()


def weights_in(folder: Path) -> list[Path]:
    """The files of weights of a folder; raises `ConfigError` where there are none."""
    kinds = (sorted(folder.glob(pattern)) for pattern in FILES)
    found = next((files for files in kinds if files), None)
    if found is None:
        raise ConfigError(
            f"{folder} is no LAVM's folder: it has none of {', '.join(FILES)}.",
            "Give the folder with config.json and weights.",
        )
    return found


class Lavm:
    """Weights of one model; one call at a time. There is no end token: a frame is always whole."""

    def __init__(
        self,
        model: Any,
        config: LavmConfig,
        name: str,
        *,
        batch: int = BATCH,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model = model.eval()
        self.config = config
        self.name = name
        """Tells these weights from all others."""
        self._batch = batch
        self._cache_bytes = cache_bytes

    def predict(
        self, sentence: ArrayLike, *, seed: int = 0, sampling: Sampling | None = None
    ) -> np.ndarray:
        """The frame after a visual sentence, codes int64 (frame_tokens,), as `predict_batch`."""
        return self.predict_batch([np.asarray(sentence)], seed=seed, sampling=sampling)[0]

    def predict_batch(
        self,
        sentences: Sequence[ArrayLike],
        *,
        seed: int | Sequence[int] = 0,
        sampling: Sampling | None = None,
    ) -> np.ndarray:
        """The frame after each sentence, codes int64 (B, frame_tokens), in any number.

        A sentence's draws follow from its seed alone (one for all, or one each), not from the
        others; `sampling` is the published one unless it is given. Sentences that are equal up to
        their last frame are drawn together and read up to there once for each batch. Raises
        `ConfigError` for codes that are none and, except where the published code keeps the last
        frames, for more than fit.
        """
        rows = [self._fitting(sentence) for sentence in sentences]
        seeds = [seed] * len(rows) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(rows):
            raise ConfigError(f"{len(seeds)} seeds are not those of {len(rows)} sentences.")
        how = sampling or self.config.variant.sampling
        length = self.config.frame_tokens
        found = np.zeros((len(rows), length), np.int64)
        for some in self._batches(rows):
            chances = np.stack([np.random.default_rng(seeds[n]).random(length) for n in some])
            with writing(self.name), torch.inference_mode():
                found[some] = self._drawn(np.stack([rows[n] for n in some]), chances, how)
        return found

    def _fitting(self, sentence: ArrayLike) -> np.ndarray:
        """A sentence's codes, int64 (L,), that leave room for a frame."""
        codes, length = np.asarray(sentence), self.config.frame_tokens
        if codes.ndim != 1 or not len(codes) or len(codes) % length:
            raise ConfigError(f"A sentence of {codes.shape} codes is no row of {length}s.")
        if codes.min() < 0 or codes.max() >= self.config.codes:
            raise ConfigError(
                f"Codes {codes.min()}..{codes.max()} are not {self.name}'s {self.config.codes}.",
                "The tokenizer is not the one that the model was trained with.",
            )
        most = (self.config.frames - 1) * length
        if len(codes) > most and not self.config.variant.keeps_last:
            raise too_long(len(codes) // length + 1, self.config.frames)
        return codes[-most:].astype(np.int64)

    def _batches(self, rows: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Places of the sentences to read together: of one length, of one beginning if possible."""
        alike: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        rest: dict[int, list[int]] = defaultdict(list)
        length = self.config.frame_tokens
        for place, row in enumerate(rows):
            alike[len(row), row[:-length].tobytes()].append(place)
        most = self._rows(2 * length)
        for (size, _), places in alike.items():
            whole = len(places) // most * most
            yield from (places[at : at + most] for at in range(0, whole, most))
            rest[size] += places[whole:]
        for size, places in rest.items():
            most = self._rows(size + length)
            yield from (places[at : at + most] for at in range(0, len(places), most))

    def _rows(self, length: int) -> int:
        """How many sentences of so many codes are drawn at once."""
        row = self._memory(1, length, "meta")
        return max(1, min(self._batch, self._cache_bytes // (row.numel() * row.element_size())))

    def _drawn(self, rows: np.ndarray, chances: np.ndarray, how: Sampling) -> np.ndarray:
        """The frame after each of these sentences of one length, (B, frame_tokens)."""
        ids = torch.from_numpy(rows).to(self.model.device)
        uniform = torch.from_numpy(chances).to(self.model.device)
        length = self.config.frame_tokens
        split = ids.shape[1] - length
        first, same = np.unique(rows[:, :split], axis=0, return_index=True, return_inverse=True)[1:]
        if split and len(ids) > 1 and len(first) == 1:
            before = self._memory(1, split)
            self._read(ids[:1, :split], before, 0)
            memory, shared = self._memory(len(ids), 2 * length), before[:, :, 0]
        else:
            memory, shared = self._memory(len(ids), split + 2 * length), None
            self._read_each(ids[:, :split], memory, first, same.reshape(-1))
        at = 0 if shared is not None else split
        with attending_to(self.model, shared):
            logits = self._read(ids[:, split:], memory, at, shared)
            told: list[Tensor] = []
            cache = cache_in(memory, at + length)
            for place in range(length):
                told.append(draw(logits[:, : self.config.codes], how, uniform[:, place]))
                if place + 1 < length:
                    logits = self._step(told[-1][:, None], cache, ids.shape[1] + place, shared)
        return torch.stack(told, 1).cpu().numpy()

    def _read_each(self, ids: Tensor, memory: Tensor, first: np.ndarray, same: np.ndarray) -> None:
        """Read the different beginnings once each, and give all rows that have them a copy."""
        if not ids.shape[1]:
            return
        for number, row in enumerate(first):
            own = memory[:, :, row : row + 1]
            self._read(ids[row : row + 1], own, 0)
            others = [n for n in np.flatnonzero(same == number).tolist() if n != row]
            memory[:, :, others, :, : ids.shape[1]] = own[..., : ids.shape[1], :]

    def _read(self, ids: Tensor, memory: Tensor, at: int, shared: Tensor | None = None) -> Tensor:
        """Logits (B, V) after codes (B, Q), which `memory` holds from place `at` on."""
        begun = at + (shared.shape[-2] if shared is not None else 0)
        most = max(1, _READ_AT_ONCE // ids.shape[1])
        parts = [slice(n, n + most) for n in range(0, len(ids), most)]
        told = [self._step(ids[p], cache_in(memory[:, :, p], at), begun, shared) for p in parts]
        return torch.cat(told)

    def _step(self, ids: Tensor, cache: Cache, begun: int, shared: Tensor | None) -> Tensor:
        """Logits (B, V) after codes (B, Q) at positions from `begun` on."""
        positions = torch.arange(begun, begun + ids.shape[1], device=ids.device)[None]
        out = self.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **({} if shared is None else {"shared": shared}),
        )
        return out.logits[:, -1]

    def _memory(self, rows: int, length: int, device: str | None = None) -> Tensor:
        """Room for keys and values, (layers, 2, rows, heads, length, size of a head)."""
        c = self.model.config
        shape = (c.num_hidden_layers, 2, rows, c.num_key_value_heads, length, c.head_dim)
        return torch.empty(shape, dtype=self.model.dtype, device=device or self.model.device)


def candidates(logits: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """Chances (B, k) of what may be drawn from logits (B, V), largest first, and which ids."""
    scaled = logits.float() / how.temperature
    values, ids = scaled.topk(min(how.top_k or scaled.shape[-1], scaled.shape[-1]))
    chances = values.double().softmax(-1)
    before = chances.cumsum(-1) - chances
    chances = chances.masked_fill(before >= how.top_p, 0)
    return chances / chances.sum(-1, keepdim=True), ids


def draw(logits: Tensor, how: Sampling, uniform: Tensor) -> Tensor:
    """One id (B,) from logits (B, V) each, by a number (B,) in [0, 1) each."""
    if not how.temperature:
        return logits.argmax(-1)
    chances, ids = candidates(logits, how)
    place = (chances.cumsum(-1) <= uniform[:, None]).sum(-1)
    place = place.minimum((chances > 0).sum(-1) - 1)
    return ids.gather(1, place[:, None])[:, 0]


def _llama(config: LavmConfig, state: Mapping[str, Tensor], dtype: torch.dtype, path: Path) -> Any:
    """The networks with these weights."""
    llama = LlamaConfig(**config.llama)
    with torch.device("meta"):
        model = LlamaForCausalLM(llama)
    own = {
        name: t.to(dtype) for name, t in state.items() if not name.endswith("rotary_emb.inv_freq")
    }
    if llama.tie_word_embeddings:
        own["lm_head.weight"] = own["model.embed_tokens.weight"]
    check_state(own, model.state_dict(), path)
    model.load_state_dict(own, assign=True)
    model.model.rotary_emb = LlamaRotaryEmbedding(config=llama)
    return model
