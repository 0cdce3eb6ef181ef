"""The training loop of the small pocket networks: resumable, a process of one thread per worker.

A `Recipe` says what is built, what a batch is and what it costs; the loop owns the optimiser, the
running mean of the weights, the state on disk and the log. A network's parts may be trained one
after another: when a part's turn is over, its mean weights are taken and stay.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing.spawn import spawn

from pipeline.errors import ConfigError

STATE = "training.safetensors"
LOG = "log.jsonl"
SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, on what. All functions are module-level ones, so that workers find them."""

    name: str
    """The checkpoint's file without its suffix."""
    build: Callable[[], nn.Module]
    losses: Callable[[nn.Module, str, int, range, float], dict[str, torch.Tensor]]
    """(network, part, seed, indices of the batch, how far in [0, 1] the part's turn is) -> named
    losses; `total` is minimised."""
    generator_digest: Callable[[], str]
    batch: int
    """Pictures in a step, over all workers."""
    parts: tuple[tuple[str, float], ...]
    """(name of a submodule, "" for all, where its turn ends); the last one ends at 1."""
    rate: float = 2e-3
    warmup: float = 0.02
    """Share of a part's turn."""
    decay: float = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training run is: the same plan continues the same run."""

    seed: int
    minutes: float
    """Length of the schedule in minutes of training, where `images` does not give it."""
    images: int | None


class Training:
    """Weights, their running mean, the optimiser's state, and how far the run is."""

    def __init__(self, recipe: Recipe, plan: Plan, out: Path) -> None:
        torch.manual_seed(plan.seed)
        self.recipe, self.plan, self.out = recipe, plan, out
        self.model = recipe.build()
        self.named = dict(self.model.named_parameters())
        self.mean = {name: w.detach().clone() for name, w in self.named.items()}
        groups = [
            {"params": params, "weight_decay": decay, "part": part}
            for part, _ in recipe.parts
            for params, decay in self._split(part)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
        self.steps, self.seconds, self.part, self.begun = 0, 0.0, "", False

    def _split(self, part: str) -> list[tuple[list[nn.Parameter], float]]:
        """A part's matrices, which decay, and its other weights, which do not."""
        own = [w for name, w in self.named.items() if _within(part, name)]
        matrices, others = [w for w in own if w.ndim > 1], [w for w in own if w.ndim <= 1]
        return [(matrices, self.recipe.decay), (others, 0.0)]

    @property
    def images(self) -> int:
        return self.steps * self.recipe.batch

    @property
    def progress(self) -> float:
        """Share of the schedule that is done, in [0, 1]."""
        if self.plan.images:
            return min(1.0, self.images / self.plan.images)
        return min(1.0, self.seconds / 60 / self.plan.minutes)

    def turn(self) -> tuple[str, float]:
        """Whose turn it is, and how far in [0, 1] that turn is."""
        began = 0.0
        for part, ends in self.recipe.parts[:-1]:
            if self.progress < ends:
                return part, (self.progress - began) / (ends - began)
            began = ends
        return self.recipe.parts[-1][0], (self.progress - began) / (1 - began)

    def begin(self, part: str) -> None:
        """Let one part learn; the others keep their mean weights and statistics."""
        if self.part and part != self.part:
            with torch.no_grad():
                for name, weight in self.named.items():
                    weight.copy_(self.mean[name])
        self.part, self.begun = part, True
        self.model.eval()
        self.model.get_submodule(part).train()
        for name, weight in self.named.items():
            weight.requires_grad_(_within(part, name))

    def save(self) -> None:
        """Write the state beside the final place, then rename."""
        tensors = {f"mean.{name}": mean for name, mean in self.mean.items()}
        for name, weight in self.named.items():
            tensors[f"weight.{name}"] = weight.detach()
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value)
        for name, value in self.model.named_buffers():
            tensors[f"buffer.{name}"] = value
        facts = {
            "steps": self.steps,
            "seconds": self.seconds,
            "part": self.part,
            "plan": asdict(self.plan),
        }
        hidden = self.out / f".{STATE}"
        save_file(
            {n: t.contiguous() for n, t in tensors.items()}, hidden, {"run": json.dumps(facts)}
        )
        hidden.rename(self.out / STATE)

    def restore(self) -> bool:
        """Take up the state in `out`, if there is one."""
        if not (self.out / STATE).exists():
            return False
        facts = read_facts(self.out)
        self.steps, self.seconds, self.part = facts["steps"], facts["seconds"], facts["part"]
        tensors = load_file(self.out / STATE)
        with torch.no_grad():
            for name, weight in self.named.items():
                weight.copy_(tensors[f"weight.{name}"])
                self.mean[name].copy_(tensors[f"mean.{name}"])
                if f"step.{name}" in tensors:
                    moments = ("step", "exp_avg", "exp_avg_sq")
                    self.optimizer.state[weight] = {k: tensors[f"{k}.{name}"] for k in moments}
            for name, buffer in self.model.named_buffers():
                buffer.copy_(tensors[f"buffer.{name}"])
        return True


def train(recipe: Recipe, out: str | Path, plan: Plan, *, workers: int) -> Path:
    """Train, or continue, in the folder `out`; returns the checkpoint, fp16 safetensors.

    The schedule ends after `plan.minutes` of training, or after `plan.images` pictures where given:
    then the result depends on the seed and the number of workers only.
    """
    if recipe.batch % workers:
        raise ConfigError(
            f"{workers} workers cannot share {recipe.batch} pictures.", "Use 1, 2 or 4."
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / ".meeting"
    meeting.unlink(missing_ok=True)
    if workers == 1:
        try:
            _work(0, 1, str(meeting), folder, recipe, plan)
        finally:
            torch.set_flush_denormal(False)  # in this process others count on small numbers
    else:
        spawn(_work, args=(workers, str(meeting), folder, recipe, plan), nprocs=workers)
    return export(recipe, folder, folder / f"{recipe.name}.safetensors")


def _work(rank: int, workers: int, meeting: str, folder: Path, recipe: Recipe, plan: Plan) -> None:
    """One worker of a run; the first one keeps the clock, the log and the state on disk."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    run = Training(recipe, plan, folder)
    run.restore()
    share = recipe.batch // workers
    started, before, saved = time.monotonic(), run.seconds, run.seconds
    losses: list[dict[str, float]] = []
    while run.progress < 1:
        first = run.images + rank * share
        indices = range(first, first + share)
        losses.append(step(run, indices, before + time.monotonic() - started))
        if rank == 0 and (run.progress >= 1 or run.seconds - saved > SAVE_EVERY_S):
            _note(run, losses)
            run.save()
            saved, losses = run.seconds, []
    dist.destroy_process_group()


def step(run: Training, indices: range, seconds: float) -> dict[str, float]:
    """One step of the optimiser on this worker's pictures, averaged over workers."""
    part, along = run.turn()
    if part != run.part or not run.begun:
        run.begin(part)
    rate = run.recipe.rate * _schedule(along, run.recipe.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = rate if group["part"] == part else 0.0
    losses = run.recipe.losses(run.model, part, run.plan.seed, indices, along)
    run.optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    weights = [w for w in run.named.values() if w.requires_grad]
    run.seconds = _average_gradients(weights, seconds)
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    run.optimizer.step()
    run.steps += 1
    keep = min(0.998, (1 + run.steps) / (10 + run.steps))
    torch._foreach_lerp_(
        [m for n, m in run.mean.items() if run.named[n].requires_grad],
        [w.detach() for w in weights],
        1 - keep,
    )
    return {key: value.item() for key, value in losses.items()}


def _average_gradients(weights: list[nn.Parameter], seconds: float) -> float:
    """Give every worker the mean gradient, and the first worker's clock, which is returned."""
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    clock = torch.tensor([seconds if dist.get_rank() == 0 else 0.0])
    flat = torch.cat([clock, *(g.flatten() for g in grads)])
    dist.all_reduce(flat)
    flat[1:] /= dist.get_world_size()
    for weight, part in zip(weights, flat[1:].split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)
    return flat[0].item()


def export(recipe: Recipe, folder: Path, path: Path) -> Path:
    """Write the mean weights of the run in `folder` as an fp16 checkpoint."""
    facts = read_facts(folder)
    tensors = load_file(folder / STATE)
    kept = {name.partition(".")[2]: t for name, t in tensors.items() if name[0] in "mb"}
    weights = {
        name: kept[name].half() if kept[name].is_floating_point() else kept[name]
        for name in recipe.build().state_dict()
    }
    metadata = {
        "variant": recipe.name,
        "seed": str(facts["plan"]["seed"]),
        "images": str(facts["steps"] * recipe.batch),
        "generator": recipe.generator_digest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    save_file(weights, hidden, metadata)
    hidden.chmod(0o644)
    return hidden.rename(path)


def read_facts(folder: Path) -> dict[str, Any]:
    """How far the run in `folder` is, and its plan."""
    with safe_open(folder / STATE, "pt") as file:
        return json.loads(file.metadata()["run"])


def _within(part: str, name: str) -> bool:
    """Whether a weight is of a part; the part without a name is the whole network."""
    return not part or name.startswith(f"{part}.")


def _schedule(along: float, warmup: float) -> float:
    """Warm up in a straight line, then half a cosine down to a hundredth."""
    if along < warmup:
        return 0.02 + 0.98 * along / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (along - warmup) / (1 - warmup)))


def _note(run: Training, losses: list[dict[str, float]]) -> None:
    """One line of the log: where the run is and the mean losses since the last line."""
    last = [x for x in losses if x.keys() == losses[-1].keys()]
    means = {key: round(float(np.mean([x[key] for x in last])), 4) for key in last[0]}
    line = {"images": run.images, "seconds": round(run.seconds), "part": run.part, **means}
    with (run.out / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")
