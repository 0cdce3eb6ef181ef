"""Laws of the benchmarks: what lies on disk is what is asked, and nothing bad goes by unseen."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadImage, ConfigError
from pipeline.eval.benchmark import Benchmark, Item
from pipeline.eval.benchmarks.hub import PUBLISHED
from pipeline.eval.benchmarks.mmbench import write_submission
from pipeline.eval.benchmarks.mme import read_results, write_results
from pipeline.eval.benchmarks.opening import BENCHMARKS, open_benchmark
from pipeline.eval.benchmarks.vstar import split_options
from pipeline.eval.scorers import mme_scores
from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.needles import CODE_LENGTH, plant
from pipeline.scenes.tags import ALPHABET
from pipeline.sources.decode import decode
from pipeline.sources.scenes import ScenesSource
from tests.sources.pictures import encoded, gradient

CLOSING = "Answer with the option's letter from the given choices directly."
PICTURE = encoded()


def rows_of(opened: Benchmark, said: dict[str, str | None]) -> list[dict[str, Any]]:
    """A row for each question, as an evaluation gives them."""
    rows = []
    for item in opened.items:
        text = said.get(item.item_id, "")
        value = None if text is None else opened.score(item, text).value
        row = {name: getattr(item, name) for name in ("item_id", "category", "image_id", "answer")}
        rows.append({**row, "said": text, "value": value})
    return rows


def noise(seed: int) -> bytes:
    """A picture too large to be taken for a reference, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def write_lines(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        sheet = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(rows)


def vstar_pairs(root: Path) -> Path:
    for category, count in (("direct_attributes", 6), ("relative_position", 3)):
        folder = root / category
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"sa_{number}.jpg").write_bytes(PICTURE)
            notes = {
                "target_object": ["glove"],
                "bbox": [[4, 6, 10, 8]],
                "question": f"What is glove {number} made of?",
                "options": ["rubber", "cotton", "kevlar", "leather"],
            }
            (folder / f"sa_{number}.json").write_text(json.dumps(notes))
    return root


def test_folders_of_vstar_never_have_the_gold_always_first(tmp_path: Path) -> None:
    opened = open_benchmark("vstar", str(vstar_pairs(tmp_path)), seed=3)
    assert [item.answer for item in opened.items] == ["rubber"] * 9
    assert len({item.label for item in opened.items}) > 1
    first = opened.items[0]
    assert (first.item_id, first.category) == ("direct_attributes/sa_0.jpg", "direct_attributes")
    assert first.boxes == (Box(4, 6, 14, 14),)
    assert opened.picture(first) == PICTURE
    lines = opened.ask(first).split("\n")
    assert lines[0] == "What is glove 0 made of?"
    assert lines[1:5] == [f"({'ABCD'[n]}) {text}" for n, text in enumerate(first.options)]
    assert lines[5] == CLOSING
    assert opened.score(first, f"<answer>{first.label}</answer>").value == 1.0
    assert open_benchmark("vstar", str(tmp_path), seed=3).digest == opened.digest
    assert open_benchmark("vstar", str(tmp_path), seed=4).digest != opened.digest


def test_the_lettered_form_of_vstar_keeps_its_order_and_takes_boxes_from_beside(
    tmp_path: Path,
) -> None:
    vstar_pairs(tmp_path)
    text = "What is it made of?\n(A) cotton\n(B) rubber\n" + CLOSING
    line = {"image": "direct_attributes/sa_0.jpg", "text": text, "label": "B", "question_id": 0}
    write_lines(tmp_path / "test_questions.jsonl", [{**line, "category": "direct_attributes"}])
    opened = open_benchmark("vstar", str(tmp_path), published=True)
    (item,) = opened.items
    assert (item.item_id, item.question) == ("direct_attributes/sa_0.jpg", "What is it made of?")
    assert (item.options, item.answer, item.label) == (("cotton", "rubber"), "rubber", "B")
    assert item.boxes == (Box(4, 6, 14, 14),)
    assert opened.ask(item) == text
    assert opened.score(item, "<answer>(B)</answer>").value == 1.0
    assert opened.score(item, "B").value is None
    assert opened.protocol["extractor"] == "published"


def test_options_are_split_from_lines_and_from_one_line() -> None:
    assert split_options("Q?\n(A) x y\n(B) z\nAnswer.") == ("Q?", ("x y", "z"))
    assert split_options("Q? (A) x (B) z") == ("Q?", ("x", "z"))
    with pytest.raises(ValueError, match="A, C"):
        split_options("Q?\n(A) x\n(C) z")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"image": "a.jpg"}', '{"image": "a", "text": "Q\\n(A) x", "label": "B"}']
)
def test_a_bad_line_of_vstar_is_named(tmp_path: Path, line: str) -> None:
    good = {"image": "a.jpg", "text": "Q?\n(A) x\n(B) y", "label": "A"}
    (tmp_path / "test_questions.jsonl").write_text(f"{json.dumps(good)}\n\n{line}\n")
    with pytest.raises(ConfigError, match=r"Line 3 of 'test_questions\.jsonl'"):
        open_benchmark("vstar", str(tmp_path))


def test_a_missing_or_a_hostile_picture_is_a_bad_image_and_not_an_error(tmp_path: Path) -> None:
    lines = [
        {"image": name, "text": "Q?\n(A) x\n(B) y", "label": "A"}
        for name in ("gone.jpg", "../secret.jpg", "/etc/passwd", "a\u0000b.jpg")
    ]
    inside = tmp_path / "bench"
    inside.mkdir()
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    write_lines(inside / "test_questions.jsonl", lines)
    opened = open_benchmark("vstar", str(inside))
    for item in opened.items:
        with pytest.raises(BadImage):
            opened.picture(item)


def hrbench(path: Path) -> Path:
    rows = []
    for question, category in ((0, "single"), (1, "cross")):
        picture = base64.b64encode(noise(question)).decode()
        for cycle in range(4):
            options = dict(
                zip("ABCD", np.roll(["red", "blue", "green", "grey"], cycle), strict=True)
            )
            rows.append(
                {
                    "index": 4 * question + cycle,
                    "question": 'Which "colour"\nis it?',
                    **options,
                    "answer": "ABCD"[cycle],
                    "category": category,
                    "cycle_category": str(cycle),
                    "image": picture if cycle < 3 else str(4 * question),
                }
            )
    write_tsv(path, rows)
    return path


def test_hrbench_is_read_from_tsv_with_quotes_breaks_and_shared_pictures(tmp_path: Path) -> None:
    opened = open_benchmark("hrbench", str(hrbench(tmp_path / "hr_bench_4k.tsv")))
    assert opened.name == "hrbench-4k"
    assert [item.answer for item in opened.items] == ["red"] * 8
    assert opened.items[1].options == ("grey", "red", "blue", "green")
    assert len({item.image_id for item in opened.items}) == 2
    assert opened.picture(opened.items[3]) == noise(0)
    assert opened.picture(opened.items[6]) == noise(1)
    assert opened.ask(opened.items[0]).startswith('Which "colour"\nis it?\n(A) red')


def test_hrbench_adds_up_by_the_order_of_its_options(tmp_path: Path) -> None:
    opened = open_benchmark("hrbench", str(hrbench(tmp_path / "hr_bench_4k.tsv")))
    said: dict[str, str | None] = {item.item_id: "A" for item in opened.items}
    said["4"] = None
    assert opened.official is not None
    told = opened.official(rows_of(opened, said))
    assert told["single"] == 25
    assert told["cross"] == 0  # of three orders: the one that would be right is unscored
    assert told["overall"] == 25
    assert (told["overall.cycle 0"], told["unscored"]) == (100, 1)


def test_a_part_keeps_every_order_of_a_question(tmp_path: Path) -> None:
    path = str(hrbench(tmp_path / "hr_bench_4k.tsv"))
    assert len(open_benchmark("hrbench", path, limit=5).items) == 4
    assert len(open_benchmark("hrbench", path, limit=1).items) == 4


def test_parquet_holds_the_same_benchmark_as_tsv(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    one = open_benchmark("hrbench", str(hrbench(tmp_path / "hr_bench_4k.tsv")))
    with (tmp_path / "hr_bench_4k.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    below = tmp_path / "parquet"
    below.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), below / "hr_bench_4k.parquet", row_group_size=3)
    other = open_benchmark("hrbench", str(below))
    assert (other.items, other.protocol) == (one.items, one.protocol)
    for mine, theirs in zip(one.items, other.items, strict=True):
        assert one.picture(mine) == other.picture(theirs)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answer": "E"}, "'E' to 4 options"),
        ({"question": ""}, "no question"),
        ({"image": "77"}, "no row '77'"),
    ],
)
def test_a_bad_row_of_a_table_is_named(tmp_path: Path, change: dict[str, str], why: str) -> None:
    path = hrbench(tmp_path / "hr_bench_4k.tsv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    write_tsv(path, [rows[0], {**rows[1], **change}])
    with pytest.raises(ConfigError, match=f"Row '1' of 'hr_bench_4k.tsv'.*{why}"):
        open_benchmark("hrbench", str(path))


def test_a_picture_that_is_no_base64_is_a_bad_image(tmp_path: Path) -> None:
    path = hrbench(tmp_path / "hr_bench_4k.tsv")
    path.write_text(path.read_text().replace(base64.b64encode(noise(0)).decode(), "!" * 100))
    opened = open_benchmark("hrbench", str(path))
    with pytest.raises(BadImage) as caught:
        opened.picture(opened.items[0])
    assert caught.value.reason == "corrupt"


def mme(root: Path, *, apart: bool) -> Path:
    for task in ("color", "count"):
        folder = root / "MME_Benchmark_release_version" / task
        notes, images = folder, folder
        if apart:
            notes, images = folder / "questions_answers_YN", folder / "images"
        for each in (folder, notes, images):
            each.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            gap = "  " if number == 1 else " "
            lines = [
                f"Is picture {number} {word}?{gap}Please answer yes or no.\t{gold}\n"
                for word, gold in (("red", "Yes"), ("blue", "No"))
            ]
            (notes / f"{number}.txt").write_text("".join(lines))
            (images / f"{number}.png").write_bytes(PICTURE)
    return root


@pytest.mark.parametrize("apart", [False, True])
def test_mme_is_read_in_both_layouts_and_asked_in_both_ways(tmp_path: Path, apart: bool) -> None:
    root = str(mme(tmp_path, apart=apart))
    official, llava = open_benchmark("mme", root), open_benchmark("mme", root, prompt="llava")
    assert len(official.items) == 12
    assert official.items == llava.items
    two_spaces = next(item for item in official.items if item.item_id == "color/1.png#0")
    assert (two_spaces.question, two_spaces.answer) == ("Is picture 1 red?", "yes")
    assert official.ask(two_spaces) == "Is picture 1 red?  Please answer yes or no."
    single = "Is picture 1 red?\nAnswer the question using a single word or phrase."
    assert llava.ask(two_spaces) == single
    assert official.picture(two_spaces) == PICTURE
    assert official.digest != llava.digest
    assert official.score(two_spaces, "Yes, it is").value == 1.0
    assert official.score(two_spaces, "The answer is yes").value == 0.0
    strict = open_benchmark("mme", root, labels="strict")
    assert strict.score(two_spaces, "The answer is yes").value == 1.0


def test_results_of_mme_are_written_and_read_back_to_the_same_totals(tmp_path: Path) -> None:
    opened = open_benchmark("mme", str(mme(tmp_path / "data", apart=False)))
    texts = ["yes\nindeed", "no\tnot", "Yes.\r\n", "\u2028no", "maybe", "   no"]
    said: dict[str, str | None] = {
        item.item_id: texts[n % len(texts)] for n, item in enumerate(opened.items)
    }
    rows = rows_of(opened, said)
    assert opened.official is not None
    told = opened.official(rows)
    assert write_results(tmp_path / "out", opened, rows[::-1]) == 0
    lines = (tmp_path / "out" / "color.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "0.png\tIs picture 0 red? Please answer yes or no.\tYes\tyes indeed"
    assert [line.split("\t")[0] for line in lines] == ["0.png"] * 2 + ["1.png"] * 2 + ["2.png"] * 2
    back = read_results(tmp_path / "out")
    assert mme_scores(back[::-1]) == pytest.approx(told)
    rows[0]["said"] = None
    assert write_results(tmp_path / "less", opened, rows) == 2


def test_results_of_mme_with_a_tab_too_many_are_refused(tmp_path: Path) -> None:
    (tmp_path / "color.txt").write_text("a.png\tQ\tYes\tyes\nb.png\tQ\tNo\tno\tno\n")
    with pytest.raises(ConfigError, match=r"Line 2 of .*color\.txt"):
        read_results(tmp_path)


def test_a_bad_line_of_mme_is_named_and_a_picture_with_one_question_refused(
    tmp_path: Path,
) -> None:
    notes = mme(tmp_path, apart=False) / "MME_Benchmark_release_version" / "color" / "2.txt"
    kept = notes.read_text().splitlines()
    notes.write_text(f"{kept[0]}\nIs it blue? Yes\n")
    with pytest.raises(ConfigError, match=r"Line 2 of 'color/2\.txt'"):
        open_benchmark("mme", str(tmp_path))
    notes.write_text(kept[0])
    with pytest.raises(ConfigError, match=r"color/2\.png"):
        open_benchmark("mme", str(tmp_path))


def test_mme_without_a_picture_asks_all_the_same_and_fails_at_that_picture(tmp_path: Path) -> None:
    root = mme(tmp_path, apart=False)
    (root / "MME_Benchmark_release_version" / "count" / "0.png").unlink()
    opened = open_benchmark("mme", str(root))
    assert len(opened.items) == 12
    bad = [item for item in opened.items if item.image_id == "count/0"]
    for item in bad:
        with pytest.raises(BadImage):
            opened.picture(item)


def test_mme_is_read_from_the_copy_on_the_hub(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"question_id": "OCR/1.jpg", "category": "OCR", "answer": gold, "image": {"bytes": PICTURE},
         "question": f'Is it "{word}"? Please answer yes or no.'}
        for word, gold in (("A", "Yes"), ("B", "No"))
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "test-00000.parquet")
    opened = open_benchmark("mme", str(tmp_path))
    assert [item.item_id for item in opened.items] == ["OCR/1.jpg#0", "OCR/1.jpg#1"]
    assert {item.image_id for item in opened.items} == {"OCR/1.jpg"}
    assert opened.picture(opened.items[1]) == PICTURE


def mmbench(path: Path) -> Path:
    rows = [
        {
            "index": number,
            "question": f"Question {number}?",
            "hint": "Look closely." if number else "nan",
            "A": "cat",
            "B": "dog",
            "C": "" if number else "cow",
            "D": "None",
            "answer": "B",
            "category": "animals",
            "l2-category": "things",
            "image": base64.b64encode(noise(number)).decode(),
            "comment": "",
        }
        for number in range(2)
    ]
    write_tsv(path, rows)
    return path


def test_mmbench_asks_with_its_hint_and_ends_its_options_at_nothing(tmp_path: Path) -> None:
    opened = open_benchmark("mmbench", str(mmbench(tmp_path / "dev.tsv")))
    assert [item.options for item in opened.items] == [("cat", "dog", "cow"), ("cat", "dog")]
    wanted = f"Look closely.\nQuestion 1?\nA. cat\nB. dog\n{CLOSING}"
    assert opened.ask(opened.items[1]) == wanted


def test_mmbench_turns_its_options_where_the_file_has_not(tmp_path: Path) -> None:
    opened = open_benchmark("mmbench", str(mmbench(tmp_path / "dev.tsv")), circular=True)
    assert [item.item_id for item in opened.items] == ["0", "1000000", "2000000", "1", "1000001"]
    assert [item.label for item in opened.items] == ["B", "A", "C", "B", "A"]
    assert {item.answer for item in opened.items} == {"dog"}
    said: dict[str, str | None] = {item.item_id: item.label for item in opened.items}
    said["1000001"] = "B"
    assert opened.official is not None
    told = opened.official(rows_of(opened, said))
    assert (told["circular"], told["single"], told["rows"]) == (50, 100, 80)
    assert len(open_benchmark("mmbench", str(tmp_path), circular=True, limit=3).items) in (2, 3)


def test_the_sheet_of_mmbench_has_the_columns_of_a_submission(tmp_path: Path) -> None:
    table = mmbench(tmp_path / "dev.tsv")
    said = {"0": "<answer>dog</answer>", "1": "dunno"}
    assert write_submission(tmp_path / "sheet.tsv", table, said) == 2
    rows = list(csv.reader(io.StringIO((tmp_path / "sheet.tsv").read_text()), delimiter="\t"))
    assert rows[0] == ["index", "question", "A", "B", "C", "D", "prediction", "answer"]
    assert [row[6] for row in rows[1:]] == ["B", "dunno"]


def pope(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "images" / "COCO_1.jpg").write_bytes(PICTURE)
    for category in ("random", "popular", "adversarial"):
        lines = [
            {"question_id": n, "image": "COCO_1.jpg", "text": f"Is there a {word}?", "label": label}
            for n, (word, label) in enumerate([("cat", "yes"), ("dog", "no"), ("cow", "no")])
        ]
        write_lines(root / f"coco_pope_{category}.json", lines)
    return root


def test_pope_is_read_from_its_three_files_and_adds_up(tmp_path: Path) -> None:
    opened = open_benchmark("pope", str(pope(tmp_path)))
    assert len(opened.items) == 9
    assert {item.image_id for item in opened.items} == {"COCO_1.jpg"}
    assert opened.picture(opened.items[0]) == PICTURE
    assert opened.ask(opened.items[0]) == "Is there a cat?"
    said: dict[str, str | None] = {
        item.item_id: "No, there is not." if "dog" in item.question else "Yes"
        for item in opened.items
    }
    said["random/0"] = None
    assert opened.official is not None
    told = opened.official(rows_of(opened, said))
    assert told["popular.accuracy"] == pytest.approx(200 / 3)
    assert (told["popular.precision"], told["popular.recall"]) == (50, 100)
    assert told["popular.f1"] == pytest.approx(200 / 3)
    assert told["random.yes_ratio"] == 50
    assert told["unscored"] == 1


def test_one_file_of_pope_is_enough_and_a_bad_label_is_named(tmp_path: Path) -> None:
    path = pope(tmp_path) / "coco_pope_popular.json"
    assert {i.category for i in open_benchmark("pope", str(path)).items} == {"popular"}
    path.write_text(path.read_text().replace('"no"', '"none"'))
    with pytest.raises(ConfigError, match=r"Line 2 of 'coco_pope_popular\.json'"):
        open_benchmark("pope", str(path))


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    lines = [
        {"image": "a.png", "question": "Which?", "answer": "B", "options": ["x", "y"],
         "boxes": [[1, 2, 3, 4]], "category": "letters"},
        {"image": "a.png", "question": "Is it?", "answer": "Yes", "id": "mine"},
        {"image": "a.png", "question": "How many?", "answer": 12},
    ]  # fmt: skip
    write_lines(tmp_path / "questions.jsonl", lines)
    opened = open_benchmark("folder", str(tmp_path))
    which, is_it, how_many = opened.items
    assert (which.answer, which.label, which.boxes) == ("y", "B", (Box(1, 2, 3, 4),))
    assert [item.item_id for item in opened.items] == ["a.png", "mine", "a.png#2"]
    assert opened.ask(is_it) == "Is it?\nPlease answer yes or no."
    values = [opened.score(*pair).value for pair in ((which, "y"), (is_it, "no"), (how_many, "12"))]
    assert values == [1.0, 0.0, 1.0]
    assert opened.score(how_many, "a dozen").value == 0.0
    judged = open_benchmark("folder", str(tmp_path), unmatched="judge")
    assert judged.score(how_many, "a dozen").value is None
    assert judged.score(how_many, "").value == 0.0
    from_file = open_benchmark("folder", str(tmp_path / "questions.jsonl"))
    assert from_file.digest == opened.digest


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"image": "a", "question": "Q"}, "each a text"),
        ({"image": "a", "question": "Q", "answer": "z", "options": ["x"]}, "none of the options"),
        ({"image": "a", "question": "Q", "answer": "x", "box": [1, 2, 3, 4]}, "'boxes'"),
        ({"image": "a", "question": "Q", "answer": "x", "boxes": [[3, 2, 1, 4]]}, "boxes"),
        ({"image": "a", "question": "Q", "answer": "x", "options": "xy"}, "no list"),
    ],
)
def test_a_bad_line_of_ones_own_is_named(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    good = {"image": "a", "question": "Q", "answer": "x"}
    write_lines(tmp_path / "questions.jsonl", [good, line])
    with pytest.raises(ConfigError, match=f"Line 2 of 'questions.jsonl'.*{why}"):
        open_benchmark("folder", str(tmp_path))


def test_two_questions_with_one_key_are_refused(tmp_path: Path) -> None:
    line = {"image": "a", "question": "Q", "answer": "x", "id": "k"}
    write_lines(tmp_path / "questions.jsonl", [line, line])
    with pytest.raises(ConfigError, match="'k'"):
        open_benchmark("folder", str(tmp_path))


def test_needles_are_the_same_for_a_seed_and_begin_alike_whatever_their_number() -> None:
    few, many = open_benchmark("needles", limit=5), open_benchmark("needles", limit=12)
    assert many.items[:5] == few.items
    assert open_benchmark("needles", limit=5).digest == few.digest
    assert open_benchmark("needles", seed=1, limit=5).items != few.items
    assert len(open_benchmark("needles").items) == 40
    for item in many.items:
        assert len(item.answer) == CODE_LENGTH
        assert set(item.answer) <= set(ALPHABET)
        assert many.score(item, f"<answer>{item.answer.lower()}</answer>").value == 1.0
        assert many.score(item, "I see no code").value == 0.0


def test_needles_spread_over_the_budgets_from_which_they_can_be_read() -> None:
    opened = open_benchmark("needles")
    counts = [
        sum(i.category == f"readable from {r}" for i in opened.items) for r in (224, 448, 1024)
    ]
    assert counts == [8, 8, 8]
    tags = [item.boxes[0] for item in opened.items]
    assert max(box.width for box in tags) > 4 * min(box.width for box in tags)


def test_a_needle_is_drawn_where_its_box_says_and_only_when_it_is_asked_for() -> None:
    opened = open_benchmark("needles", limit=2, size="768x576")
    item = opened.items[1]
    data = opened.picture(item)
    image = decode(data)
    assert image.size == (768, 576)
    assert opened.picture(item) == data
    middle = np.asarray(image.crop(tuple(map(int, item.boxes[0].as_list()))))
    grey = middle.astype(float).mean(-1)
    assert grey.max() - grey.min() > 100  # print on its tag


def test_no_needle_shares_its_scene_or_its_codes_with_pictures_for_training() -> None:
    opened = open_benchmark("needles", limit=3, size="512x512")
    source = ScenesSource(3, seed=0, size=(512, 512))
    for item, entry in zip(opened.items, source.entries(), strict=True):
        (theirs,) = source.pictures(entry)
        assert theirs.image is not None
        ours = decode(opened.picture(item))
        apart = np.abs(np.asarray(ours, float) - np.asarray(theirs.image, float)).max(-1)
        assert (apart > 16).mean() > 0.5
        codes = {tag.code for tag in plant(theirs.image, rng_for(0, entry.key, "needles"))[1]}
        assert item.answer not in codes


@pytest.mark.parametrize("size", ["big", "10x10", "2048x99999", "2048"])
def test_needles_of_impossible_sizes_are_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="cannot be drawn"):
        open_benchmark("needles", size=size)


def test_names_and_options_that_do_not_exist_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'vstar'"):
        open_benchmark("vstars")
    with pytest.raises(ConfigError, match="'prompt'"):
        open_benchmark("mme", prompts="llava")
    with pytest.raises(ConfigError, match="'llava'"):
        open_benchmark("mme", prompt="lava")
    with pytest.raises(ConfigError, match="from 1"):
        open_benchmark("needles", limit=0)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "needles"])
def test_a_folder_that_is_not_there_or_empty_says_what_it_is_to_hold(
    tmp_path: Path, name: str
) -> None:
    for source in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigError) as caught:
            open_benchmark(name, str(source))
        assert caught.value.fix


@pytest.mark.parametrize("name", ["vstar", "mme", "hrbench", "mmbench", "pope"])
def test_without_a_network_the_hub_is_one_sentence_and_what_to_place(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source in (None, "hf://datasets/someone/nothing@main"):
        with pytest.raises(ConfigError, match="could not be fetched") as caught:
            open_benchmark(name, source)
        known = PUBLISHED.get(name) or PUBLISHED[f"{name}-4k"]
        assert known.holds in str(caught.value.fix)


def test_a_snapshot_of_the_hub_is_read_through_its_links_at_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = PUBLISHED["vstar"].revision
    assert commit is not None
    repository = tmp_path / "datasets--craigwu--vstar_bench"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    vstar_pairs(snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(snapshot.glob("*/*"))):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    opened = open_benchmark("vstar")
    assert opened.protocol["revision"] == commit
    assert opened.protocol["source"] == "hf://datasets/craigwu/vstar_bench"
    assert opened.picture(opened.items[0]) == PICTURE
    local = open_benchmark("vstar", str(vstar_pairs(tmp_path / "own")))
    assert local.items == opened.items


def test_the_digest_follows_questions_protocol_and_sizes_of_pictures(tmp_path: Path) -> None:
    root = vstar_pairs(tmp_path)
    digests = {open_benchmark("vstar", str(root)).digest}
    digests.add(open_benchmark("vstar", str(root), published=True).digest)
    (root / "direct_attributes" / "sa_0.jpg").write_bytes(encoded(gradient((60, 40))))
    digests.add(open_benchmark("vstar", str(root)).digest)
    notes = root / "direct_attributes" / "sa_1.json"
    notes.write_text(notes.read_text().replace("glove 1", "hat 1"))
    digests.add(open_benchmark("vstar", str(root)).digest)
    assert len(digests) == 4


def test_a_part_takes_turns_among_categories_and_depends_on_the_seed(tmp_path: Path) -> None:
    root = str(vstar_pairs(tmp_path))
    part = open_benchmark("vstar", root, limit=4)
    assert [item.category for item in part.items].count("relative_position") == 2
    assert open_benchmark("vstar", root, limit=4).items == part.items
    others = {tuple(i.item_id for i in open_benchmark("vstar", root, limit=4, seed=s).items)
              for s in range(5)}  # fmt: skip
    assert len(others) > 1
    assert len(open_benchmark("vstar", root, limit=99).items) == 9


def test_the_label_is_the_letter_of_the_right_option() -> None:
    assert Item("a", "a", "Q", "y", ("x", "y")).label == "B"
    assert Item("a", "a", "Q", "yes").label == ""
