"""Fine-tuning learns what the assistant says, can be stopped anywhere, and tells where it is from.

Real parts throughout: a run's rows, TRL's trainer, real architectures with random weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from manifests.database import query
from pipeline.errors import ConfigError
from pipeline.turns import Mark

pytestmark = pytest.mark.torch

pytest.importorskip("trl")

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForImageTextToText  # noqa: E402

from pipeline.train.loading import load_policy  # noqa: E402
from pipeline.train.presets import SFT_PRESETS, SftSettings, settings_from  # noqa: E402
from pipeline.train.processing import load_processor  # noqa: E402
from pipeline.train.rows import IGNORED, batches, collator_for, load_rows  # noqa: E402
from pipeline.train.sft import SPECIAL_TOKENS, Asked, Trained, train_sft  # noqa: E402
from pipeline.train.tracking import data_digest  # noqa: E402
from tests.train import tiny_training  # noqa: E402
from tests.train.tiny_training import KINDS  # noqa: E402

Losses = dict[int, float]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows."""
    return tiny_training.make_run(tmp_path_factory.mktemp("run"), 16)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 rows as they are exported for Qwen2.5-VL."""
    folder = tmp_path_factory.mktemp("few")
    run = tiny_training.make_run(folder, 2)
    return tiny_training.rows_for(run, folder / "data", "qwen2_5_vl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_training.checkpoint(tmp_path_factory.mktemp("model") / "tiny", "qwen2_5_vl")


def smoke(*sets: str) -> SftSettings:
    return settings_from(SftSettings, SFT_PRESETS, "smoke", sets)


def trained(
    asked: Asked, *, stop_at: int | None = None, runs: str = "runs"
) -> tuple[Trained, Losses]:
    """Train, and stop after so many updates if told; the loss of each update."""
    losses: Losses = {}

    def note(step: int, logs: Mapping[str, float]) -> None:
        if "loss" in logs:
            losses[step] = logs["loss"]

    updates = iter(range(1, 10_000))
    runs_dir = asked.out.parent / runs
    done = train_sft(asked, runs_dir=runs_dir, stop=lambda: next(updates) == stop_at, on_log=note)
    return done, losses


@torch.inference_mode()
def mean_loss(folder: Path, rows: Any) -> float:
    """Of a model in a folder, over all targets of the rows: nats a token."""
    model, collator = load_policy(folder).eval(), collator_for(load_processor(folder))
    total, count = 0.0, 0
    for batch in batches(rows, collator, 8):
        targets = int((batch["labels"][:, 1:] != IGNORED).sum())
        total += float(model(**batch).loss) * targets
        count += targets
    return total / count


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_teaches_a_model(kind: str, run: Path, tmp_path: Path) -> None:
    model = tiny_training.checkpoint(tmp_path / "tiny", kind)
    data = tiny_training.rows_for(run, tmp_path / "data", kind)
    rows = load_rows(data, "train")
    asked = Asked(data, str(model), tmp_path / "out", smoke("max_steps=16", "learning_rate=3e-3"))
    done, losses = trained(asked)
    assert (done.status, done.rows, done.steps) == ("done", 64, 16)
    before, after = mean_loss(model, rows), mean_loss(Path(done.model), rows)
    assert after < 0.7 * before, (before, after)
    assert losses[16] == done.loss_last and math.isclose(losses[1], before, rel_tol=0.1)
    again = AutoModelForImageTextToText.from_pretrained(done.model)
    assert again.config.model_type == kind


@pytest.mark.parametrize("rank", [0, 4])
def test_stopped_and_resumed_it_ends_as_if_it_had_not_been(
    rank: int, few: Path, model: Path, tmp_path: Path
) -> None:
    settings = smoke("max_steps=4", f"lora_rank={rank}", "learning_rate=3e-3")
    whole, told = trained(Asked(few, str(model), tmp_path / "whole", settings))
    asked = Asked(few, str(model), tmp_path / "cut", settings)
    cut, first = trained(asked, stop_at=2)
    assert (cut.status, cut.steps, sorted(first)) == ("interrupted", 2, [1, 2])
    assert Path(cut.model).name == "checkpoint-2" and not (asked.out / "model").exists()
    with pytest.raises(ConfigError, match="holds a training") as refused:
        trained(asked)
    assert "--resume" in str(refused.value)
    rest, second = trained(Asked(few, str(model), tmp_path / "cut", settings, resume=True))
    assert (rest.status, rest.run_id) == ("done", cut.run_id)
    assert first | second == told
    name = "adapter_model.safetensors" if rank else "model.safetensors"
    ours, theirs = (load_file(Path(d.model) / name) for d in (rest, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    events = "select event from base.events where run_id = '{}' order by \"at\""
    rows = _rows(tmp_path / "runs", events.format(cut.run_id))
    named = [row["event"] for row in rows if row["event"] != "saved"]
    assert named == ["started", "interrupted", "resumed", "finished"]


def _rows(runs: Path, sql: str) -> list[dict[str, Any]]:
    from manifests.database import connect

    with connect(runs) as connection:
        return connection.execute(sql).to_arrow_table().to_pylist()


def test_a_training_is_a_run_with_parents_and_every_checkpoint_says_so(
    few: Path, model: Path, tmp_path: Path
) -> None:
    settings = smoke("max_steps=2", "save_steps=1")
    done, _ = trained(Asked(few, str(model), tmp_path / "out", settings))
    (row,) = query(tmp_path / "runs", "select * from runs").to_pylist()
    assert (row["run_id"], row["recipe"], row["status"]) == (done.run_id, "train-sft", "done")
    source = json.loads((few / "manifest.json").read_text("utf-8"))["request"]["run_id"]
    parents = json.loads(row["parents"])
    assert parents[:2] == [source, data_digest(few)] and len(parents) == 3
    for folder, step in (("checkpoint-1", 1), ("checkpoint-2", 2), ("model", 2)):
        told = json.loads((tmp_path / "out" / folder / "cofpipe.json").read_text("utf-8"))
        assert (told["run_id"], told["step"], told["data"]) == (done.run_id, step, parents[1])
        assert told["parents"] == parents and told["settings"]["max_steps"] == 2
        assert list(told["weights"]) == ["model.safetensors"]
    assert list((tmp_path / "out").rglob("events.out.tfevents.*"))


def test_a_training_that_breaks_is_told_as_failed(few: Path, model: Path, tmp_path: Path) -> None:
    def broken(step: int, logs: Mapping[str, float]) -> None:
        raise RuntimeError("The disk is full.")

    asked = Asked(few, str(model), tmp_path / "out", smoke("max_steps=1"))
    with pytest.raises(RuntimeError):
        train_sft(asked, runs_dir=tmp_path / "runs", on_log=broken)
    (row,) = query(tmp_path / "runs", "select status from runs").to_pylist()
    assert row["status"] == "failed"


def test_adapters_leave_the_tower_alone_tune_its_merger_and_merge(
    few: Path, model: Path, tmp_path: Path
) -> None:
    settings = smoke("max_steps=2", "lora_rank=4", "freeze_vision=true", "learning_rate=1e-2")
    done, _ = trained(Asked(few, str(model), tmp_path / "out", settings, merge=True))
    adapters = load_file(Path(done.model) / "adapter_model.safetensors")
    assert any("visual.merger" in name for name in adapters)
    assert any("language_model" in name for name in adapters)
    assert not any("visual.blocks" in name or "lm_head" in name for name in adapters)
    before, after = load_file(model / "model.safetensors"), load_file(_weights(done.merged))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("visual.blocks" not in name for name in changed)
    loaded = AutoModelForImageTextToText.from_pretrained(done.merged)
    tuned = AutoModelForImageTextToText.from_pretrained(done.model)
    batch = collator_for(load_processor(model))([load_rows(few, "train")[0]])
    with torch.inference_mode():
        assert torch.allclose(loaded(**batch).logits, tuned(**batch).logits, atol=1e-3)
    with pytest.raises(ConfigError, match="an adapter, not a model"):
        load_policy(done.model)


def _weights(folder: str) -> Path:
    return Path(folder) / "model.safetensors"


@pytest.mark.parametrize("rank", [0, 4])
def test_the_token_of_cof_v1_is_added_and_learnt(
    rank: int, few: Path, model: Path, tmp_path: Path
) -> None:
    run = few.parent / "runs" / json.loads((few / "manifest.json").read_text())["request"]["run_id"]
    data = tiny_training.rows_for(run, tmp_path / "data", "qwen2_5_vl", "cof-v1")
    settings = smoke("max_steps=2", f"lora_rank={rank}", "learning_rate=1e-2")
    done, _ = trained(Asked(data, str(model), tmp_path / "out", settings, merge=bool(rank)))
    folder = Path(done.merged or done.model)
    words = load_processor(folder).tokenizer
    mark = words.convert_tokens_to_ids(Mark.ZOOMIN.value)
    after = load_file(folder / "model.safetensors")
    known = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
    tables = [
        after[n] for n in sorted(after) if n.endswith(("embed_tokens.weight", "lm_head.weight"))
    ]
    assert mark >= len(known) and [len(table) for table in tables] == [len(words)] * 2
    was = load_policy(model, special_tokens=SPECIAL_TOKENS["cof-v1"])
    for table, old in zip(
        tables, (was.get_output_embeddings(), was.get_input_embeddings()), strict=True
    ):
        assert (table[mark] - old.weight[mark]).abs().max() > 1e-3
    AutoModelForImageTextToText.from_pretrained(folder)


def test_rows_to_spare_are_used_before_the_embeddings_grow(model: Path, tmp_path: Path) -> None:
    wide = load_policy(model)
    wide.resize_token_embeddings(512, mean_resizing=False)
    folder = tiny_training.checkpoint(tmp_path / "tiny", "qwen2_5_vl")
    wide.save_pretrained(folder)
    grown = load_policy(folder, special_tokens=[Mark.ZOOMIN.value])
    table = grown.get_input_embeddings().weight
    place = len(load_processor(folder).tokenizer)
    assert len(table) == 512
    assert torch.allclose(table[place], table[:place].mean(0), atol=1e-6)


def test_data_and_model_that_do_not_belong_together_are_refused_before_training(
    few: Path, model: Path, tmp_path: Path
) -> None:
    other = tiny_training.checkpoint(tmp_path / "other", "qwen3_vl")
    out = tmp_path / "out"
    wrong = [
        (Asked(few, str(other), out, smoke()), "--family qwen3-vl"),
        (Asked(tmp_path, str(model), out, smoke()), "is no exported data"),
        (Asked(few, str(model), out, smoke("max_tokens=100")), "8 of 8 rows are longer than 100"),
        (Asked(few, str(model), out, smoke(), merge=True), "Nothing is to be merged"),
    ]
    if not torch.accelerator.is_available():
        wrong.append((Asked(few, str(model), out, SftSettings()), "no GPU here for bfloat16"))
    for asked, why in wrong:
        with pytest.raises(ConfigError) as refused:
            train_sft(asked, runs_dir=tmp_path / "runs")
        assert why in str(refused.value)
    assert not out.exists() and not (tmp_path / "runs").exists()


def test_the_published_recipe_is_the_default() -> None:
    told = settings_from(SftSettings, SFT_PRESETS, "published").model_dump()
    published = {
        "lora_rank": 32, "lora_alpha": 64, "freeze_vision": True, "tune_merger": True,
        "epochs": 3.0, "schedule": "cosine", "warmup_ratio": 0.1, "learning_rate": 1e-5,
        "max_tokens": 81_920, "max_pixels": 3840**2, "batch_size": 2, "accumulation": 2,
        "dtype": "bfloat16", "save_steps": 100, "log_steps": 1,
    }  # fmt: skip
    assert told | published == told


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (["lora_rnak=4"], "Did you mean 'lora_rank'?"),
        (["lora_rank=-1"], "Setting 'lora_rank'"),
        (["lora_rank"], "has no value"),
        (["dtype=int8"], "Setting 'dtype'"),
    ],
)
def test_a_wrong_setting_is_told(sets: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        smoke(*sets)
    assert why in str(refused.value)


def test_a_wrong_preset_is_told() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'published'"):
        settings_from(SftSettings, SFT_PRESETS, "publshed")


@pytest.mark.parametrize(
    ("name", "processes"), [("fsdp_one_node", (1, 8)), ("fsdp_nodes", (2, 16))]
)
def test_the_launchers_settings_are_what_accelerate_reads(
    name: str, processes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    path = str(files("pipeline.train").joinpath(f"accelerate/{name}.yaml"))
    command = ["--config_file", path, "-m", "pipeline.cli.app", "train", "sft"]
    told, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    for key, value in prepare_multi_gpu_env(told).items():
        if key.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert (told.num_machines, told.num_processes) == processes
    assert set(ClusterConfig.from_yaml_file(path).fsdp_config) <= {
        f"fsdp_{known}"
        for known in (
            "version",
            "offload_params",
            *FullyShardedDataParallelPlugin.__dataclass_fields__,
        )
    }
