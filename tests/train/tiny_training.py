"""What the tests of training start from: a tiny published checkpoint, and a run of real rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import config_from
from pipeline.geometry import Frame
from pipeline.grammar import PROFILES
from pipeline.instructions import instructions
from pipeline.samples import rng_for
from pipeline.synthesis.exports import Export, export
from pipeline.synthesis.run import synthesize
from tests.models import tiny_qwen

KINDS = ("qwen2_5_vl", "qwen3_vl")
FAMILIES = {"qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
PROCESSORS = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}
VIDEO_PROCESSORS = {"qwen2_5_vl": "Qwen2VLVideoProcessor", "qwen3_vl": "Qwen3VLVideoProcessor"}
FILMS = {
    "size": tiny_qwen.SIZE,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}


def stock_template(kind: str) -> str:
    """The chat template that a family was published with, as TRL knows it."""
    import trl

    path = Path(trl.__file__).parent / "chat_templates" / f"{kind}.jinja"
    return path.read_text("utf-8")


def checkpoint(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A tiny model with the files that a published one has, its video block included.

    Each sentence of our instructions is one token of it, so that rows are short.
    """
    tokenizer = tiny_qwen.build_tokenizer()
    frame = Frame("thousand", (1, 1))
    told = " ".join(instructions(profile, frame) for profile in PROFILES)
    tokenizer.add_tokens(sorted(set(re.findall(r"[^\n.;,]{12,}[.;,]?", told))))
    tokenizer.chat_template = stock_template(kind)
    tokenizer.save_pretrained(folder)
    told = folder / "tokenizer_config.json"
    fields = json.loads(told.read_text("utf-8")) | {"processor_class": PROCESSORS[kind]}
    told.write_text(json.dumps(fields, indent=2), "utf-8")
    tiny_qwen.build_model(tokenizer, kind=kind, seed=seed).save_pretrained(folder)
    tiny_qwen.write_image_settings(folder, patch=16 if kind == "qwen3_vl" else 14)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text("utf-8")) | {"processor_class": PROCESSORS[kind]}
    path.write_text(json.dumps(settings, indent=2), "utf-8")
    films = FILMS | {"processor_class": PROCESSORS[kind]}
    films |= {"video_processor_type": VIDEO_PROCESSORS[kind]}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(films, indent=2), "utf-8")
    return folder


def make_run(folder: Path, pictures: int) -> Path:
    """A run of four rows a picture at the budget of 224, made by the oracle: each zooms once."""
    (folder / "photos").mkdir(parents=True)
    for number in range(pictures):
        coarse = rng_for(number, "sft").integers(0, 256, (12, 16, 3), dtype=np.uint8)
        soft = Image.fromarray(coarse).resize((448, 336), Image.Resampling.BICUBIC)
        soft.save(folder / "photos" / f"{number:02d}.png", compress_level=1)
    config = config_from(
        {
            "source": str(folder / "photos"),
            "task": {"per_image": 4, "budgets": [224]},
            "policy": {"kind": "oracle"},
            "run": {"dir": str(folder / "runs")},
        }
    )
    made = synthesize(config, shards=1, address="none")
    assert made.kept == 4 * pictures
    return folder / "runs" / made.run_id


def rows_for(run: Path, out: Path, kind: str, profile: str = "cof-v2") -> Path:
    """The run's rows for TRL, all of them to train on."""
    export(run, out, Export("trl", family=FAMILIES[kind], profile=profile, split=0.0))
    return out
