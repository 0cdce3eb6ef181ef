"""A run that predicts queries from exemplars with a large autoregressive vision model.

Finds pool, queries, model and tokenizer, and names the run by what determines its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.eval import lavm_worker
from pipeline.eval.lavm_config import LavmConfig, check_capacity, read_json, translate
from pipeline.eval.lavm_pictures import is_drawn
from pipeline.eval.lavm_pool import open_prompts, open_queries, pool_places
from pipeline.eval.lavm_protocol import LAVM_METHODS, LavmProtocol
from pipeline.eval.run import KIND, SHARDS, Evaluation, begin, plan_of, run_id_of
from pipeline.models.weights import POCKET_LAVM
from pipeline.sources.specs import existing_folder

POCKET = "pocket"
"""Names the LAVM that is shipped."""


def asked_of(
    *,
    prompts: Path,
    queries: Path,
    model: Path,
    tokenizer: Path | None = None,
    images: Path | None = None,
    truth: Path | None = None,
    variant: str | None = None,
    methods: Sequence[str] | None = None,
    **rest: Any,
) -> LavmProtocol:
    """What is asked, with whole paths; raises `ConfigError` for a folder that is not there.

    The tokenizer is looked for inside the model's folder, and the variant is told by the model's
    config, unless they are given.
    """
    model = _model_at(model)
    given = {"prompts": prompts, "queries": queries, "images": images, "truth": truth}
    drawn = {name: str(place) for name, place in given.items() if is_drawn(str(place))}
    folders = given | {"model": model, "tokenizer": tokenizer or tokenizer_in(model)}
    told: dict[str, Any] = {
        name: str(existing_folder(str(path)).resolve())
        for name, path in folders.items()
        if path is not None and name not in drawn
    } | drawn
    config = _config_of(model, variant)
    named: Any = variant or (config.variant.name if config else "delvm")
    chosen: tuple[Any, ...] = tuple(methods or LAVM_METHODS)
    return LavmProtocol(variant=named, methods=chosen, **told, **rest)


def _model_at(model: Path) -> Path:
    """The folder of a LAVM, or the shipped one for `pocket`."""
    if str(model) != POCKET:
        return existing_folder(str(model))
    if not (POCKET_LAVM / "config.json").is_file():
        raise ConfigError(
            "The pocket LAVM is not there.", "Run `cofpipe models train pocket-lavm`."
        )
    return POCKET_LAVM


def tokenizer_in(model: Path) -> Path:
    """The VQGAN inside a LAVM's folder; raises `ConfigError` unless there is exactly one."""
    folders = sorted(path.parent for path in model.glob("*/config.json"))
    found = [folder for folder in folders if "num_embeddings" in read_json(folder)]
    if len(found) != 1:
        raise ConfigError(
            f"There are {len(found)} tokenizers inside '{model}'.",
            "Give the VQGAN's folder with --tokenizer DIR.",
        )
    return found[0]


def plan_lavm(
    config: Config, asked: LavmProtocol, *, shards: int = SHARDS, resume: str = "auto"
) -> Evaluation:
    """Look at pool, queries and model, and write `run.json`; nothing is predicted yet.

    Raises `ConfigError` for what cannot be run, such as a sentence that the model cannot take.
    """
    from pipeline.eval import lavm, vqgan

    pool, queries = open_prompts(asked), open_queries(asked)
    places, left_out = pool_places(pool, queries, asked.levels)
    if len(places) < asked.k:
        raise ConfigError(f"{asked.k} exemplars cannot come from {len(places)} pictures.")
    _check_capacity(asked)
    policy = config.policy.model_copy(update={"kind": "local", "model": asked.model})
    recipe = f"eval-{asked.benchmark}"
    config = config.model_copy(update={"recipe": recipe, "policy": policy})
    told: dict[str, Any] = {
        "kind": KIND,
        "design": asked.semantic(),
        "seed": config.seed,
        "device": policy.device,
        "shards": shards,
        "data": [pool.digest, queries.digest],
        "model": [lavm.digest(asked.model), vqgan.digest(asked.tokenizer)],
    }
    entries = min(len(queries.known), asked.limit or len(queries.known))
    plan = plan_of(config, run_id_of(recipe, told, resume), entries, shards)
    continued = (Path(plan.run_dir) / "run.json").exists()
    if not continued:
        told |= {"pool": {"pictures": len(places), "left_out": dict(sorted(left_out.items()))}}
        begin(config, asked, plan, told, [pool.parent, queries.parent])
    return Evaluation(config, asked, plan, f"{lavm_worker.__name__}:open_worker", continued)


def _check_capacity(asked: LavmProtocol) -> None:
    """Raise `ConfigError` where the longest sentence does not fit a model that cuts none."""
    config = _config_of(Path(asked.model), asked.variant)
    if config and not config.variant.keeps_last:
        check_capacity(asked.k, max(map(asked.shown, asked.methods)), config.frames)


def _config_of(model: Path, variant: str | None) -> LavmConfig | None:
    """A model's config; None for weights as they were trained, which tell their own sizes."""
    if not (model / "config.json").is_file():
        return None
    return translate(read_json(model), variant=variant)
