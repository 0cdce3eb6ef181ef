"""The training recipe of the pocket segmenter: drawn pictures in, one small checkpoint out.

Each step encodes a few pictures once and asks for many objects in each: points and loose boxes.
The single mask and the best of the three ambiguous ones are trained together, as in the original;
the mean of the weights over the last steps is what is kept.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from pipeline.errors import ConfigError
from pipeline.models.pocket_sam_init import well_begun
from pipeline.models.pocket_sam_losses import affinity_loss, losses_of
from pipeline.models.pocket_sam_scenes import (
    BOXES,
    POINTS,
    SIDE,
    generator_digest,
    make_example,
)
from pipeline.models.sam_build import build

STATE = "training.safetensors"
LOG = "log.jsonl"
BATCH = 4
"""Pictures in a step."""
SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training run is: the same plan continues the same run."""

    seed: int
    minutes: float
    """Length of the schedule in minutes of training, where `images` does not give it."""
    images: int | None
    rate: float = 1e-3
    warmup: float = 0.01
    """Share of the schedule."""
    decay: float = 0.02


class Training:
    """Weights, their running mean, the optimiser's state, and how far the run is."""

    def __init__(self, plan: Plan, out: Path) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.out = plan, out
        self.model = build("pocket")
        self.model.train()
        well_begun(self.model)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.weights = list(self.model.parameters())
        self.mean = [w.detach().clone() for w in self.weights]
        decayed = [w for w in self.weights if w.ndim > 1]
        others = [w for w in self.weights if w.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": plan.decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
        self.steps, self.seconds = 0, 0.0

    @property
    def images(self) -> int:
        return self.steps * BATCH

    @property
    def progress(self) -> float:
        """Share of the schedule that is done, in [0, 1]."""
        if self.plan.images:
            return min(1.0, self.images / self.plan.images)
        return min(1.0, self.seconds / 60 / self.plan.minutes)

    def save(self) -> None:
        """Write the state beside the final place, then rename."""
        tensors = {f"mean.{n}": m for n, m in zip(self.names, self.mean, strict=True)}
        for name, weight in zip(self.names, self.weights, strict=True):
            tensors[f"weight.{name}"] = weight.detach()
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value)
        for name, value in self.model.named_buffers():
            tensors[f"buffer.{name}"] = value
        facts = {"steps": self.steps, "seconds": self.seconds, "plan": asdict(self.plan)}
        hidden = self.out / f".{STATE}"
        save_file(
            {n: t.contiguous() for n, t in tensors.items()}, hidden, {"run": json.dumps(facts)}
        )
        hidden.rename(self.out / STATE)

    def restore(self) -> bool:
        """Take up the state in `out`, if there is one."""
        if not (self.out / STATE).exists():
            return False
        with safe_open(self.out / STATE, "pt") as file:
            facts = json.loads(file.metadata()["run"])
        self.steps, self.seconds = facts["steps"], facts["seconds"]
        tensors = load_file(self.out / STATE)
        with torch.no_grad():
            for name, weight, mean in zip(self.names, self.weights, self.mean, strict=True):
                weight.copy_(tensors[f"weight.{name}"])
                mean.copy_(tensors[f"mean.{name}"])
                moments = ("step", "exp_avg", "exp_avg_sq")
                if f"step.{name}" in tensors:
                    self.optimizer.state[weight] = {k: tensors[f"{k}.{name}"] for k in moments}
            for name, buffer in self.model.named_buffers():
                buffer.copy_(tensors[f"buffer.{name}"])
        return True


def train(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 100.0,
    images: int | None = None,
    workers: int = 2,
) -> Path:
    """Train, or continue, in the folder `out`; returns the checkpoint, fp16 safetensors.

    The schedule ends after `minutes` of training, or after `images` pictures where given: with
    `images` the result depends on the seed and the number of workers only. Each worker is a process
    of one thread with its share of every step's pictures.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if BATCH % workers:
        raise ConfigError(f"{workers} workers cannot share {BATCH} pictures.", "Use 1, 2 or 4.")
    plan = Plan(seed, minutes, images)
    meeting = folder / ".meeting"
    meeting.unlink(missing_ok=True)
    spawn(_work, args=(workers, str(meeting), folder, plan), nprocs=workers)
    return export(folder, folder / "pocket_sam.safetensors")


def _work(rank: int, workers: int, meeting: str, folder: Path, plan: Plan) -> None:
    """One worker of a run; the first one keeps the clock, the log and the state on disk."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    run = Training(plan, folder)
    run.restore()
    share = BATCH // workers
    started, before, saved = time.monotonic(), run.seconds, run.seconds
    losses: list[dict[str, float]] = []
    while run.progress < 1:
        first = run.images + rank * share
        batch = [load_example(plan.seed, index) for index in range(first, first + share)]
        losses.append(step(run, batch, before + time.monotonic() - started))
        if rank == 0 and (run.progress >= 1 or run.seconds - saved > SAVE_EVERY_S):
            _note(run, losses)
            run.save()
            saved, losses = run.seconds, []
    dist.destroy_process_group()


def step(run: Training, batch: list[dict[str, torch.Tensor]], seconds: float) -> dict[str, float]:
    """One step of the optimiser on this worker's pictures, averaged over workers."""
    rate = run.plan.rate * _schedule(run.progress, run.plan.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    pictures = torch.stack([_normalised(run.model, example) for example in batch])
    parts: list[dict[str, torch.Tensor]] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=_fast_bfloat16()):
        embeddings = run.model.image_encoder(pictures)
        for embedding, example in zip(embeddings, batch, strict=True):
            logits, ious = _decode(run.model, embedding[None], example)
            losses = losses_of(logits.float(), ious.float(), example)
            parts.append(losses | {"affinity": affinity_loss(embedding, example["owners"])})
    means = {key: torch.stack([part[key] for part in parts]).mean() for key in parts[0]}
    total = means["single"] + 0.5 * means["best"] + 0.3 * means["iou"] + 0.5 * means["affinity"]
    run.optimizer.zero_grad(set_to_none=True)
    total.backward()
    run.seconds = _average_gradients(run.weights, seconds)
    torch.nn.utils.clip_grad_norm_(run.weights, 1.0)
    run.optimizer.step()
    run.steps += 1
    keep = min(0.9985, (1 + run.steps) / (10 + run.steps))
    torch._foreach_lerp_(run.mean, [w.detach() for w in run.weights], 1 - keep)
    return {key: value.item() for key, value in means.items()}


def _fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; else it is slower than float32."""
    return "avx512_bf16" in torch.backends.cpu.get_cpu_capability().lower() or bool(
        torch.cpu._is_avx512_bf16_supported()
    )


def _average_gradients(weights: list[torch.nn.Parameter], seconds: float) -> float:
    """Give every worker the mean gradient, and the first worker's clock, which is returned."""
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    clock = torch.tensor([seconds if dist.get_rank() == 0 else 0.0])
    flat = torch.cat([clock, *(g.flatten() for g in grads)])
    dist.all_reduce(flat)
    flat[1:] /= dist.get_world_size()
    for weight, part in zip(weights, flat[1:].split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)
    return flat[0].item()


def export(folder: Path, path: Path) -> Path:
    """Write the mean weights of the run in `folder` as an fp16 checkpoint."""
    with safe_open(folder / STATE, "pt") as file:
        facts = json.loads(file.metadata()["run"])
    tensors = load_file(folder / STATE)
    kept = {name.partition(".")[2]: t for name, t in tensors.items() if name[0] in "mb"}
    weights = {name: kept[name].half() for name in build("pocket").state_dict()}
    metadata = {
        "variant": "pocket",
        "seed": str(facts["plan"]["seed"]),
        "images": str(facts["steps"] * BATCH),
        "generator": generator_digest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    save_file(weights, hidden, metadata)
    hidden.chmod(0o644)
    return hidden.rename(path)


def load_example(seed: int, index: int) -> dict[str, torch.Tensor]:
    """The training picture of a key, as tensors."""
    example = make_example(seed, index)
    arrays = {key: np.asarray(getattr(example, key)) for key in example.__slots__}
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _normalised(model: Any, example: dict[str, torch.Tensor]) -> torch.Tensor:
    """The picture as the encoder takes it, float (3, SIDE, SIDE); nothing beyond its edges."""
    picture = example["image"].permute(2, 0, 1).float()
    picture = (picture - model.pixel_mean) / model.pixel_std
    width, height = example["size"].tolist()
    inside = torch.zeros(1, SIDE, SIDE)
    inside[:, :height, :width] = 1
    return picture * inside


def _decode(
    model: Any, embedding: torch.Tensor, example: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """All four masks of every prompt: logits (N, 4, h, w) and predicted IoUs (N, 4)."""
    labels = torch.ones(POINTS, 1)
    with torch.autocast("cpu", enabled=False):
        by_point, dense = model.prompt_encoder((example["points"][:, None], labels), None, None)
        by_box, _ = model.prompt_encoder(None, example["boxes"], None)
        places = model.prompt_encoder.get_dense_pe()
    return model.mask_decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=places,
        sparse_prompt_embeddings=torch.cat([by_point, by_box]),
        dense_prompt_embeddings=dense[:1].expand(POINTS + BOXES, -1, -1, -1),
    )


def _schedule(progress: float, warmup: float) -> float:
    """Warm up in a straight line, then half a cosine down to a hundredth."""
    if progress < warmup:
        return 0.02 + 0.98 * progress / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _note(run: Training, losses: list[dict[str, float]]) -> None:
    """One line of the log: where the run is and the mean losses since the last line."""
    means = {key: round(float(np.mean([x[key] for x in losses])), 4) for key in losses[0]}
    line = {"images": run.images, "seconds": round(run.seconds), **means}
    with (run.out / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")
