"""Laws of the pocket reader: it reads, it knows when it cannot, and its training repeats itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, ModelError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from pipeline.models import pocket_reader, pocket_reader_lines, weights  # noqa: E402
from pipeline.models.pocket_reader import (  # noqa: E402
    BLANK,
    CLEAR,
    Reader,
    decode,
    encode,
    prepare,
    same,
)
from pipeline.models.pocket_reader_calibrate import calibrate  # noqa: E402
from pipeline.models.pocket_reader_eval import (  # noqa: E402
    Outcomes,
    blank_lines,
    calibration_error,
    held_out_lines,
    outcomes,
)
from pipeline.models.pocket_reader_texts import random_text  # noqa: E402
from pipeline.models.pocket_reader_train import RECIPE, batched, train  # noqa: E402
from pipeline.models.pocket_training import Plan  # noqa: E402
from pipeline.models.pocket_training import train as train_recipe  # noqa: E402
from pipeline.samples import rng_for  # noqa: E402
from pipeline.scenes.fonts import FAMILIES, TEST, TRAINING  # noqa: E402
from pipeline.scenes.lettering import (  # noqa: E402
    CHARACTERS,
    LONGEST,
    Margins,
    defocus,
    draw_line,
    resample,
)

WORDS = ("GATE 47", "MARKET", "3F7K", "12:45", "KX-902", "STATION", "PUMP 6", "TRAVEL")
INK, GROUND = (25, 30, 45), (225, 220, 205)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return pocket_reader.load()


def clean(text: str, family: str, cap_px: float = 24) -> np.ndarray:
    return np.asarray(draw_line(text, family, cap_px, INK, GROUND))


@pytest.mark.parametrize("family", FAMILIES)
def test_clean_print_is_read_in_every_family_seen_or_not(reader: Reader, family: str) -> None:
    readings = reader.read([clean(text, family) for text in WORDS])
    right = [same(r.text, text) for r, text in zip(readings, WORDS, strict=True)]
    likely = [r.confidence >= 0.5 for r in readings]
    assert sum(right) >= len(WORDS) - 1
    assert sum(c for c, ok in zip(likely, right, strict=True) if ok) >= len(WORDS) - 2


def test_light_print_on_dark_is_read_as_well(reader: Reader) -> None:
    lines = [np.asarray(draw_line(text, "lora", 24, GROUND, INK)) for text in WORDS]
    assert sum(same(r.text, t) for r, t in zip(reader.read(lines), WORDS, strict=True)) >= 7


def test_crops_without_text_are_never_clear_but_for_one_in_a_hundred(reader: Reader) -> None:
    rng = np.random.default_rng(0)
    flat = [np.full((20, 60, 3), level, np.uint8) for level in (0, 90, 255)]
    noise = [rng.integers(0, 256, (h, 3 * h, 3), np.uint8) for h in (8, 16, 40)]
    assert all(r.confidence < CLEAR for r in reader.read(flat + noise))
    assert outcomes(reader, blank_lines(200)).clear_share() <= 0.01


def test_fewer_pixels_and_more_blur_lower_the_confidence(reader: Reader) -> None:
    lines = [Image.fromarray(clean(text, "hanken-grotesk", 24)) for text in WORDS]

    def mean(images: list[Image.Image]) -> float:
        return float(np.mean([r.confidence for r in reader.read([*map(np.asarray, images)])]))

    by_size = [mean([resample(line, 1 / n) for line in lines]) for n in (1, 3, 5, 12)]
    by_blur = [mean([defocus(line, sigma) for line in lines]) for sigma in (0.5, 4, 8, 16)]
    for large, fair, small, tiny in (by_size, by_blur):
        assert min(large, fair) > max(0.7, small) and small > tiny
        assert tiny < 0.1


def test_a_smudge_of_two_pixels_is_unclear(reader: Reader) -> None:
    lines = [clean(text, family, 2) for text in WORDS for family in ("aileron", "lora")]
    assert all(r.confidence < CLEAR for r in reader.read(lines))


def test_confidence_means_what_it_says_on_a_held_out_sample(reader: Reader) -> None:
    found = outcomes(reader, held_out_lines(600))
    assert calibration_error(found) <= 0.08  # 600 lines alone make an error of about 0.03
    assert found.confident_wrong() <= 0.02
    assert found.right[found.confidence >= CLEAR].mean() >= 0.9


def test_a_line_is_read_the_same_alone_and_in_company(reader: Reader) -> None:
    lines = [line.image for line in held_out_lines(24)]
    together, alone = reader.read(lines), [reader.read([line])[0] for line in lines]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
    assert reader.read([]) == []


def test_any_crop_is_taken_however_small_or_long(reader: Reader) -> None:
    shapes = [(1, 1), (1, 40), (40, 1), (3, 900), (700, 20), (64, 64)]
    crops = [np.full((*shape, 3), 128, np.uint8) for shape in shapes]
    assert len(reader.read(crops)) == len(shapes)
    for crop in crops:
        channels, height, width = prepare(crop).shape
        assert (channels, height, width % pocket_reader.STRIDE) == (3, 32, 0)


def test_what_is_prepared_does_not_depend_on_exposure() -> None:
    line = clean("GATE 47", "lora").astype(np.float32)
    dim = (line * 0.5 + 20).astype(np.uint8)
    assert np.abs(prepare(line.astype(np.uint8)) - prepare(dim)).max() < 0.1


def test_decoding_joins_repeats_and_drops_blanks() -> None:
    path = [BLANK, *(CHARACTERS.index(c) + 1 for c in "BBO"), BLANK, CHARACTERS.index("O") + 1]
    logits = torch.nn.functional.one_hot(torch.tensor([path]), len(CHARACTERS) + 1).float()
    assert decode(logits) == ["BOO"]
    classes, lengths = encode(["BOO", "", "7"])
    assert lengths.tolist() == [3, 0, 1]
    assert "".join(CHARACTERS[c - 1] for c in classes.tolist()) == "BOO7"


def test_texts_are_known_characters_of_the_right_length() -> None:
    texts = [random_text(rng_for(index, "texts")) for index in range(500)]
    assert all(1 <= len(text) <= LONGEST and set(text) <= set(CHARACTERS) for text in texts)
    assert all(text == text.strip() for text in texts)
    assert len(set(texts)) > 450
    assert set("".join(texts)) == set(CHARACTERS)


def test_training_never_sees_held_out_letters_and_calibration_has_its_own() -> None:
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for calibration in used:
        lines = (
            pocket_reader_lines.training_line(0, 50_000 + n, calibration=calibration)
            for n in range(150)
        )
        used[calibration] = {line.family for line in lines} - {""}
    assert not (used[True] | used[False]) & set(TEST)
    assert not used[True] & used[False]
    assert used[True] | used[False] == set(TRAINING)
    assert {line.family for line in held_out_lines(60)} == set(TEST)


def test_lines_are_keyed() -> None:
    one, again = (pocket_reader_lines.training_line(3, 70_000) for _ in range(2))
    assert one.text == again.text and np.array_equal(one.image, again.image)
    other = pocket_reader_lines.training_line(4, 70_000)
    assert not np.array_equal(one.image, other.image)


def test_batches_hold_every_line_once() -> None:
    lines = held_out_lines(17)
    batches = batched(lines)
    assert sorted(text for _, texts in batches for text in texts) == sorted(x.text for x in lines)
    assert all(len(pixels) == len(texts) for pixels, texts in batches)


def test_calibration_error_is_the_gap() -> None:
    sure = np.full(100, 0.95)
    assert calibration_error(Outcomes(sure, np.arange(100) < 95)) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(Outcomes(sure, np.arange(100) < 45)) == pytest.approx(0.5)
    half = Outcomes(np.repeat([0.1, 0.9], 50), np.arange(100) >= 50)
    assert calibration_error(half) == pytest.approx(0.1)
    assert half.confident_wrong(0.5) == 0 and half.clear_share(0.5) == 0.5 == half.accuracy


def test_calibrating_takes_back_a_confidence_that_was_stretched(tmp_path: Path) -> None:
    state = load_file(weights.find("pocket-reader"))
    last = "confidence.judge.4.weight"
    save_file({**state, last: state[last] * 0.4}, tmp_path / "reader.safetensors", {"seed": "0"})
    before = pocket_reader.load(tmp_path / "reader.safetensors")
    lines = held_out_lines(300)
    gap = calibration_error(outcomes(before, lines))
    after = pocket_reader.load(calibrate(tmp_path / "reader.safetensors", lines=400))
    assert calibration_error(outcomes(after, lines), bins=5) < 0.1 < gap


def test_the_shipped_weights_are_small_and_say_where_they_are_from() -> None:
    path = weights.find("pocket-reader")
    assert path.stat().st_size <= 2_000_000
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["variant"] == "pocket_reader" and facts["seed"].isdigit()
    assert int(facts["images"]) > 100_000
    assert len(facts["generator"]) == len(pocket_reader_lines.generator_digest()) == 32
    listed = {known.name: known for known in weights.list_checkpoints()}
    assert listed["pocket_reader"].digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_missing_checkpoint_is_an_error() -> None:
    with pytest.raises(ModelError, match="no checkpoint"):
        pocket_reader.load("nowhere.safetensors")


def test_the_recipe_makes_a_checkpoint_that_reads(tmp_path: Path) -> None:
    made = train(tmp_path, seed=5, images=96, workers=1)
    assert made == tmp_path / "pocket_reader.safetensors"
    assert load_file(made).keys() == pocket_reader.PocketReader().state_dict().keys()
    (reading,) = pocket_reader.load(made).read([clean("GATE 47", "lora")])
    assert 0 <= reading.confidence <= 1


def test_training_continues_where_it_was_and_repeats_itself(tmp_path: Path) -> None:
    """Four steps: two of the recogniser, which then stays as it is, two of the confidence."""
    small = replace(RECIPE, batch=6, parts=(("recogniser", 0.5), ("confidence", 1.0)))

    def run(name: str, images: int) -> dict[str, torch.Tensor]:
        return load_file(train_recipe(small, tmp_path / name, Plan(5, 9.0, images), workers=1))

    whole, again = run("a", 24), run("b", 24)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    half = run("c", 12)
    further = run("c", 24)
    head, judge = "recogniser.head.weight", "confidence.judge.0.weight"
    torch.manual_seed(5)
    began = pocket_reader.PocketReader().state_dict()
    assert not torch.equal(half[head], began[head].half())
    assert torch.equal(half[head], further[head])
    assert not torch.equal(half[judge], further[judge])
    steps = [json.loads(line) for line in (tmp_path / "c" / "log.jsonl").read_text().splitlines()]
    assert [(step["images"], step["part"]) for step in steps] == [
        (12, "confidence"),
        (24, "confidence"),
    ]


def test_workers_that_cannot_share_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share"):
        train(tmp_path, images=96, workers=5)


def test_margins_are_not_needed_to_read(reader: Reader) -> None:
    tight = Margins(0.1, 0.1, 0.1, 0.1)
    lines = [np.asarray(draw_line(t, "open-sans", 24, INK, GROUND, margins=tight)) for t in WORDS]
    assert sum(same(r.text, t) for r, t in zip(reader.read(lines), WORDS, strict=True)) >= 7
