"""Laws of the families together: each folder finds its own code, and all are asked alike."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.chat import Picture, Request, Said, Sampling
from pipeline.errors import ConfigError, ModelError
from pipeline.highlight import Highlight

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.agent.local import open_local  # noqa: E402
from pipeline.models import instructblip, llava, qwen_vl, vlm  # noqa: E402
from pipeline.models.qwen_prompt import Message  # noqa: E402
from tests.models import tiny_llava, tiny_qwen  # noqa: E402

CLASSES = {
    "qwen2_5_vl": qwen_vl.QwenVl,
    "llava": llava.Llava,
    "llava_next": llava.Llava,
    "instructblip": instructblip.InstructBlip,
}
EACH = pytest.mark.parametrize("kind", CLASSES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("vlm")
    return {
        "qwen2_5_vl": tiny_qwen.build(place / "qwen2_5_vl"),
        "llava": tiny_llava.build(place / "llava"),
        "llava_next": tiny_llava.build(place / "llava_next", "llava_next"),
        "instructblip": tiny_llava.build_instructblip(place / "instructblip"),
    }


def picture() -> Image.Image:
    noise = np.random.default_rng(5).integers(0, 256, (84, 112, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def asking(highlight: Highlight | None = None) -> Request:
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG")
    said = Said("user", (Picture(buffer.getvalue(), (112, 84)), "What?"))
    return Request("read", (said,), Sampling(max_tokens=10), highlight=highlight)


@EACH
def test_a_folder_is_served_by_its_family_and_answers_alike_when_loaded_anew(
    kind: str, folders: dict[str, Path]
) -> None:
    asked = [Message("user", (picture(), "What?"))]
    first, again = vlm.load(folders[kind]), vlm.load(folders[kind])
    assert type(first) is CLASSES[kind] and first.model.config.model_type == kind
    assert first.name == again.name and first.name.startswith(f"{kind}@")
    assert first.generate(asked, max_tokens=6) == again.generate(asked, max_tokens=6)


@EACH
def test_a_request_with_a_highlight_is_steered_and_the_next_one_is_not(
    kind: str, folders: dict[str, Path]
) -> None:
    lit = Highlight(((0.0, 0.0, 0.4, 0.4),), 1e4, square=False)

    async def ask() -> list[str]:
        model = await open_local(folders[kind])
        requests = (asking(), asking(lit), asking(), asking(Highlight(lit.boxes, 1.0)))
        replies = [(await model.reply(request)).text for request in requests]
        await model.close()
        return replies

    plain, steered, after, idle = asyncio.run(ask())
    assert plain == after == idle != steered


def test_a_family_that_is_not_served_is_told_with_those_that_are(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folders["llava"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text("utf-8"))
    tiny_llava.write_json(copy / "config.json", config | {"model_type": "llava_onevision"})
    with pytest.raises(ConfigError) as raised:
        vlm.load(copy)
    assert all(kind in str(raised.value) for kind in ("'llava_onevision'", *vlm.KINDS))
    (copy / "config.json").write_text("{", "utf-8")
    with pytest.raises(ConfigError, match="not a model that is known"):
        vlm.load(copy)


@pytest.mark.parametrize("kind", ["llava", "instructblip"])
def test_weights_that_are_absent_are_not_made_up(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(folders[kind], tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    del tensors[next(name for name in tensors if "layers.1" in name)]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights"):
        vlm.load(copy)
