"""TRL's group trainer for policies that zoom: many turns, pictures from a tool, rollouts cut out.

TRL (1.16) owns generation, the loop of turns and the loss. Here is what it leaves open or gets
wrong for pictures: how a turn is read, which rollouts are kept from the loss, what their advantage
is, and that no picture is lost on the way. Its truncation mask is not used: it hides the visual
tokens of a cut rollout from what counts positions, and so misplaces those of the ones after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from pipeline.agent.families import Family
from pipeline.errors import ConfigError, ModelError
from pipeline.train.rewards import Reward
from pipeline.train.rollouts import (
    Algorithm,
    Tally,
    advantages,
    calls_answered,
    ending,
    in_words,
    message_of,
    tally,
    without_variance,
)
from pipeline.train.zoom_environment import ZoomEnvironment

Completion = Sequence[Mapping[str, Any]]


class ZoomTrainer(GRPOTrainer):
    """Policy gradients over rollouts of at most `turns` turns.

    `arguments.max_tool_calling_iterations` is `turns - 1`: the last turn can only answer.
    """

    def __init__(
        self,
        *,
        model: Any,
        processor: Any,
        family: Family,
        rows: Any,
        reward: Reward,
        algorithm: Algorithm,
        arguments: GRPOConfig,
        callbacks: Sequence[Any] = (),
        watch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        if arguments.mask_truncated_completions:
            raise ConfigError("TRL's truncation mask misplaces pictures.", "Leave it off.")
        check_template(processor)
        processor.tokenizer.padding_side = "left"
        super().__init__(
            model=model,
            reward_funcs=[reward],
            args=arguments,
            train_dataset=rows,
            processing_class=processor,
            callbacks=list(callbacks),
            environment_factory=partial(ZoomEnvironment, family),
        )
        self._turns = self.max_tool_calling_iterations + 1
        self._algorithm: Algorithm = algorithm
        self._tallies: list[Tally] = []
        self._gathered: list[float] = []
        self._watch = watch
        # the data's own instructions name the tool: TRL must not list it a second time
        self._env_tools: dict[None, list[Any]] = {None: []}
        self._tokenizer.parse_response = self._read_turn

    def _read_turn(self, ids: Sequence[int], **_: Any) -> dict[str, Any]:
        """A turn's message from its tokens, special ones written out but for the one that ends it.

        A turn of the data ends with `<|im_end|>`; what ends otherwise was cut off.
        """
        ended = ids[-1] == self._tokenizer.eos_token_id
        text = self._tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        return message_of(text, ended=ended)

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """TRL's rollouts; those that came to no end keep their tokens and get no loss."""
        result = super()._generate(prompts)
        _, completion_ids, tool_mask, completions, *_ = result
        _refuse_faults(completions)
        self._tallies = []
        for place, completion in enumerate(completions):
            ended = completion_ids[place][-1] == self._tokenizer.eos_token_id
            end = ending(completion, ended=ended, turns=self._turns)
            if end != "whole":
                tool_mask[place] = [0] * len(tool_mask[place])
            looks = self.environments[place].looks
            del looks[calls_answered(completion) :]  # a view that did not fit was never shown
            self._tallies.append(tally(completion, looks, end))
        return result

    def _calculate_rewards(
        self, inputs: list[Any], prompts: Any, completions: list[Completion], ids: Any
    ) -> torch.Tensor:
        """The reward of each rollout of all processes, (rollouts, 1): of its words as written."""
        spoken = [in_words(completion) for completion in completions]
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, spoken, ids)
        self._gathered = rewards[:, 0].tolist()
        return rewards

    def _generate_and_score_completions(self, inputs: list[Any]) -> dict[str, Any]:
        """TRL's batch with our advantages; raises `ModelError` where a picture was lost."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        shown = [
            len(row["images"]) + told.views for row, told in zip(inputs, self._tallies, strict=True)
        ]
        merged = self.processing_class.image_processor.merge_size**2
        check_pictures(batch, shown, image_token=self._image_pad_token_id, merged=merged)
        training = self.model.training
        group = self.num_generations if training else self.num_generations_eval
        every = advantages(self._gathered, group, self._algorithm)
        start = self.accelerator.process_index * len(inputs)
        mine = every[start : start + len(inputs)]
        batch["advantages"] = torch.tensor(mine, device=batch["advantages"].device)
        self._note("train" if training else "eval", group)
        if self._watch is not None:
            self._watch(batch | {"tallies": tuple(self._tallies), "rewards": tuple(self._gathered)})
        return batch

    def _note(self, mode: str, group: int) -> None:
        """Means over the rollouts of all processes, where TRL logs its own."""
        figures = [told.figures() for told in self._tallies]
        local = torch.tensor(
            [list(one.values()) for one in figures], device=self.accelerator.device
        )
        means = self.accelerator.gather(local).mean(0).tolist()
        for name, mean in zip(figures[0], means, strict=True):
            self._metrics[mode][name].append(mean)
        share = without_variance(self._gathered, group)
        self._metrics[mode]["groups/zero_variance"].append(share)


def check_template(processor: Any) -> None:
    """Raise `ConfigError` unless a picture stands in the chat once, a tool's as well as a user's.

    A template that drops or doubles it would have the policy learn blind.
    """
    from PIL import Image

    picture = Image.new("RGB", (112, 56))
    token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    grid = processor.image_processor(images=[picture], return_tensors="pt")["image_grid_thw"]
    merged = processor.image_processor.merge_size**2
    block = [{"type": "image", "image": picture}]
    for role in ("user", "tool"):
        chat = [
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "!"}]},
            {"role": role, "name": "image_zoom_in_tool", "content": block},
        ]
        try:
            read = processor.apply_chat_template(chat, tokenize=True, return_dict=True)
            found = list(read["input_ids"][0]).count(token)
        except ValueError:  # the processor counts, too
            found = 0
        if found != int(grid.prod()) // merged:
            raise ConfigError(
                f"The chat template does not show a {role}'s picture once.",
                "Load the processor with pipeline.train.processing.load_processor.",
            )


def check_pictures(
    batch: Mapping[str, Any], shown: Sequence[int], *, image_token: int, merged: int
) -> None:
    """Raise `ModelError` unless every rollout has the pictures it was shown, each token for token.

    `shown` counts each rollout's pictures, the first included; `merged` patches are one token.
    TRL drops all pictures of a batch where one does not fit, and would train on blind.
    """
    grids = batch.get("image_grid_thw")
    counts = batch.get("num_images")
    if grids is None or batch.get("pixel_values") is None or counts is None:
        raise ModelError("The trainer has dropped the pictures of a step.")
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    tokens = (ids == image_token).sum(1).tolist()
    worth = (grids.prod(1) // merged).split(counts)
    for place, (mine, count) in enumerate(zip(worth, shown, strict=True)):
        if len(mine) != count or int(mine.sum()) != tokens[place]:
            raise ModelError(
                f"Rollout {place} was shown {count} pictures; {len(mine)} of {int(mine.sum())} "
                f"tokens came, and its text has {tokens[place]}."
            )


def _refuse_faults(completions: Sequence[Completion]) -> None:
    """Raise `ModelError` where the tool itself failed: TRL would tell the policy, and go on."""
    for completion in completions:
        for message in completion:
            if message["role"] == "tool" and isinstance(message["content"], str):
                raise ModelError(f"The zoom tool failed: {message['content'][:300]}")
