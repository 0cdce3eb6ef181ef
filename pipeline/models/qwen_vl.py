"""A Qwen-VL chat model in this process: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, without torchvision.

Owns which checkpoints are taken and how a reply is drawn, token by token. Knows nothing of roles,
tools or grammars; safetensors only, and never a checkpoint's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from pipeline.errors import ConfigError
from pipeline.models.generation import (
    Draw,
    Generated,
    attending,
    check_device,
    collect,
    dtype_of,
    end_tokens,
    loading,
    name_of,
    read_weights,
    room,
    source_of,
    writing,
)
from pipeline.models.local_vlm import Asked, Vlm
from pipeline.models.qwen_batch import Row, written_together
from pipeline.models.qwen_prompt import Encoder, Message, Part
from pipeline.models.qwen_reading import Prompt, Reading
from pipeline.models.qwen_session import KEEP_TOKENS, Sessions, may_keep
from pipeline.models.vision_batches import batched_vision
from pipeline.models.vision_grid import Seen, adapter_for

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""The `model_type`s that one code serves."""

_T = TypeVar("_T")


def load(
    path_or_id: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int = 1,
    keep_tokens: int = KEEP_TOKENS,
) -> QwenVl:
    """A model from a folder, or from the Hub by its `owner/name`.

    `dtype` is torch's name for it; float32 on the CPU and the checkpoint's own elsewhere if not
    given. `threads` is torch's number of CPU threads, for the calling thread: use the model there.
    `keep_tokens` is how much of what it read it keeps, as `QwenVl` tells.
    Raises `ConfigError` for what is no such model, `ModelError` for weights that do not fit it.
    """
    source = source_of(path_or_id)
    check_device(device)
    wanted = dtype_of(dtype or ("float32" if device == "cpu" else "auto"))
    torch.set_num_threads(threads)
    with loading(source, "a Qwen-VL model"):
        config, encoder = _read_settings(source)
        model = read_weights(source, config, wanted)
    batched_vision(model)
    return QwenVl(model.to(device), encoder, name_of(path_or_id, config), keep_tokens=keep_tokens)


class QwenVl(Vlm):
    """Weights of one model; one call at a time.

    The checkpoint's own sampling defaults (top-k, repetition penalty) are not applied: a reply is
    drawn as it was asked for. What was read is kept, `keep_tokens` of the last conversations in
    all, and a request that begins with it goes on from there: a matter of rounding for the logits
    (in float32, about 1e-6 of their size), so what is drawn differs only where two tokens are that
    near. With 0 nothing is kept.
    """

    def __init__(
        self, model: Any, encoder: Encoder, name: str, *, keep_tokens: int = KEEP_TOKENS
    ) -> None:
        if model.config.image_token_id != encoder.image_token:
            raise ConfigError(f"The networks and the tokenizer of {name} do not belong together.")
        if keep_tokens < 0:
            raise ConfigError(f"No {keep_tokens} tokens can be kept.")
        self.model = model.eval()
        self.encoder = encoder
        self.name = name
        """Tells these weights from all others."""
        turn_end = encoder.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self._ends = end_tokens(model, encoder.tokenizer.eos_token_id, turn_end)
        self._longest: int = model.config.get_text_config().max_position_embeddings
        self._sessions = Sessions(keep_tokens if may_keep(model) else 0)
        self._adapter = adapter_for(model.config)

    def answer(self, conversation: Sequence[Message], asked: Asked) -> Generated:
        """With `keep_special` the marks of `cof-v1` are read as tokens, too; the same arguments
        give the same text rounding aside, as the class tells. With a `highlight` all is read anew,
        and nothing of it is kept.
        """
        sessions = self._sessions if asked.highlight is None else Sessions(0)

        def answer() -> Generated:
            prompt = self._begun(conversation, asked.prefix, asked.keep_special, sessions)
            before, shown = prompt.ids.shape[1], prompt.written.shown
            most = self._room(prompt, asked.max_tokens)
            seen = [Seen(picture.image.size, picture.grid) for picture in shown]
            with (
                attending(self.model, self._adapter, prompt.ids, seen, asked.highlight),
                closing(self._tokens(prompt, asked.draw, most, sessions)) as tokens,
            ):
                text = self._decoder(asked.keep_special)
                said = collect(tokens, before, text, self._ends, asked.stop, asked.halt, self.name)
            return replace(said, tokens_cached=prompt.held)

        return self._answered(answer)

    @torch.inference_mode()
    def generate_batch(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        prefixes: Sequence[Sequence[Part]] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        stop: Sequence[str] = (),
        seeds: Sequence[int] = (),
        keep_special: bool = False,
        halt: Callable[[], bool] = lambda: False,
    ) -> list[Generated]:
        """What `generate` gives for each, read and written together as one padded batch.

        `prefixes` and `seeds` are one for each conversation, or none. Each row goes on from what is
        kept of its own beginning, and leaves the batch when it ends. Raises as `generate` does, for
        all where it is for one.
        """
        begun = prefixes or [()] * len(conversations)
        seeded = seeds or [0] * len(conversations)

        def row(said: Sequence[Message], prefix: Sequence[Part], seed: int) -> Row:
            prompt = self._begun(said, prefix, keep_special, self._sessions)
            draw, text = Draw(temperature, top_p, seed), self._decoder(keep_special)
            return Row(prompt, draw, self._room(prompt, max_tokens), text, self._ends, stop)

        def answer() -> list[Generated]:
            rows = [*map(row, conversations, begun, seeded)]
            return written_together(self.model, rows, self._sessions, halt, self.name)

        if not len(conversations) == len(begun) == len(seeded):
            raise ConfigError("A batch has a prefix and a seed for each conversation, or none.")
        if max_tokens < 1:
            raise ConfigError(f"A batch draws 1 token or more, not {max_tokens}.")
        return self._answered(answer) if conversations else []

    @property
    def tokens_kept(self) -> int:
        """How many tokens of earlier requests are kept now."""
        return self._sessions.tokens

    def prompt(
        self,
        conversation: Sequence[Message],
        prefix: Sequence[Part] = (),
        *,
        keep_special: bool = False,
    ) -> Prompt:
        """A conversation, ready for the assistant's turn that has begun with `prefix`."""
        return self._begun(conversation, prefix, keep_special, Sessions(0))

    def _begun(
        self,
        conversation: Sequence[Message],
        prefix: Sequence[Part],
        keep_special: bool,
        sessions: Sessions,
    ) -> Prompt:
        """A prompt that goes on from what is kept; only pictures behind that are cut to patches."""
        written = self.encoder.write(conversation, prefix, keep_special=keep_special)
        session, held = sessions.beginning(written)
        positions, _ = self.model.model.get_rope_index(
            written.ids,
            (written.ids == self.encoder.image_token).int(),
            image_grid_thw=written.grids,
            attention_mask=torch.ones_like(written.ids),
        )
        images = self.encoder.patches([p for p in written.shown if p.start >= held])
        device = self.model.device
        if images:
            images["pixel_values"] = images["pixel_values"].to(self.model.dtype)
        placed = {name: tensor.to(device) for name, tensor in images.items()}
        ids = written.ids.to(device)
        return Prompt(ids, positions.to(device), placed, written, session, held)

    def _tokens(
        self, prompt: Prompt, draw: Draw, most: int, sessions: Sessions
    ) -> Generator[int, None, None]:
        """At most `most` tokens, one for each forward pass, the turn's end included."""
        reading = Reading(self.model, [prompt])
        token = None
        try:
            for _ in range(most):
                logits = reading.read() if token is None else reading.go_on([token])
                token = draw(logits[0])
                yield token
        finally:
            reading.close(sessions)

    def _decoder(self, keep_special: bool) -> Callable[[list[int]], str]:
        def text(ids: list[int]) -> str:
            return self.encoder.decode(ids, keep_special=keep_special)

        return text

    def _room(self, prompt: Prompt, most: int) -> int:
        return room(prompt.ids.shape[1], self._longest, most, self.name)

    def _answered(self, answer: Callable[[], _T]) -> _T:
        """What `answer` gives; where memory is short, once more without what is kept."""
        with writing(self.name):
            try:
                return answer()
            except torch.OutOfMemoryError:
                if not self._sessions.tokens:
                    raise
            self._sessions.clear()
            return answer()


def _read_settings(source: str) -> tuple[Any, Encoder]:
    """The configuration, and how conversations are encoded for it."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in KINDS:
        raise ConfigError(f"{source} is a '{config.model_type}', not one of {', '.join(KINDS)}.")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    images = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    return config, Encoder(tokenizer, images)
