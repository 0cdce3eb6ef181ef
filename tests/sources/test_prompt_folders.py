"""Laws of folders of prompts: what was written is read, and only whole prompts are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.prompt_folders import read_prompts, stem_of, write_prompts
from tests.sources.pictures import gradient


def frames(count: int = 2) -> list[np.ndarray]:
    """Flat colours on black, more of them in each."""
    pictures = np.zeros((count, 40, 60, 3), dtype=np.uint8)
    for step in range(count):
        pictures[step:, :, 20 * step : 20 * step + 20] = (240, 80 * step, 30)
    return list(pictures)


def test_prompts_are_named_as_published_and_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "prompts"
    written = write_prompts(folder, 9, frames())
    assert [path.name for path in written] == ["000000000009_0.jpg", "000000000009_1.jpg"]
    write_prompts(folder, "sub dir é.x", [gradient(), gradient()])
    assert read_prompts(folder) == {
        "000000000009": written,
        "sub dir é.x": [folder / "sub dir é.x_0.jpg", folder / "sub dir é.x_1.jpg"],
    }
    for path, frame in zip(written, frames(), strict=True):
        pixels = np.asarray(Image.open(path)).astype(int)
        assert pixels.shape == frame.shape
        assert np.abs(pixels - frame).mean() < 2
    assert {path.suffix for path in folder.iterdir()} == {".jpg"}


@pytest.mark.parametrize("image_id", [12, "photo", "photo_1", "IMG_2024"])
def test_a_full_frame_is_no_step(tmp_path: Path, image_id: str | int) -> None:
    written = write_prompts(tmp_path, image_id, frames(3), full=True)
    assert written[-1].name == f"{stem_of(image_id)}.jpg"
    skipped: Counter[str] = Counter()
    assert read_prompts(tmp_path, skipped=skipped) == {stem_of(image_id): written[:3]}
    assert not +skipped


def test_incomplete_prompts_are_counted_and_left_out(tmp_path: Path) -> None:
    for number in range(6):
        write_prompts(tmp_path, number, frames())
    (tmp_path / "000000000001_0.jpg").unlink()
    (tmp_path / "000000000002_1.jpg").unlink()
    (tmp_path / "000000000003_1.jpg").write_bytes(b"")
    (tmp_path / ".000000000004_2.jpg.77").write_bytes(b"x")
    (tmp_path / "._000000000007_0.jpg").write_bytes(b"x")
    (tmp_path / "000000000005_2.jpg").mkdir()
    (tmp_path / "query.jpg").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    skipped: Counter[str] = Counter()
    found = read_prompts(tmp_path, skipped=skipped)
    assert list(found) == ["000000000000", "000000000004", "000000000005"]
    assert skipped == {"incomplete_levels": 3, "not_a_prompt": 1}


def test_the_number_of_levels_can_be_asked_for(tmp_path: Path) -> None:
    write_prompts(tmp_path, "a", frames(2))
    write_prompts(tmp_path, "b", frames(3))
    assert list(read_prompts(tmp_path)) == ["b"]
    assert {stem: len(paths) for stem, paths in read_prompts(tmp_path, levels=2).items()} == {
        "a": 2,
        "b": 2,
    }


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    written = write_prompts(tmp_path, "many", frames(1) * 12)
    assert read_prompts(tmp_path) == {"many": written}


def test_writing_again_replaces(tmp_path: Path) -> None:
    write_prompts(tmp_path, 1, frames())
    first = (tmp_path / "000000000001_0.jpg").read_bytes()
    write_prompts(tmp_path, 1, frames()[::-1])
    assert (tmp_path / "000000000001_1.jpg").read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("image_id", ["", "a/b", "..", ".hidden", "a\\b", "a\0", "a\nb"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(ConfigError, match="no file name"):
        write_prompts(tmp_path, image_id, frames())


def test_a_folder_that_is_gone_is_an_error_and_an_empty_one_is_none(tmp_path: Path) -> None:
    assert read_prompts(tmp_path) == {}
    with pytest.raises(SourceError, match="cannot be read"):
        read_prompts(tmp_path / "gone")
    with pytest.raises(ConfigError, match="no frames"):
        write_prompts(tmp_path, 1, [])
