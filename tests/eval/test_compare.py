"""The comparison against numbers that are known: made-up scores, curves and tables of counts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.eval.compare import against, paired, plain, table
from pipeline.eval.disagreements import disagreements
from pipeline.eval.resampling import estimates, resampled, sign_test
from pipeline.eval.saving import Saving, cheapest, saving, savings, verdict
from pipeline.eval.tried import Key, gathered

Rows = list[dict[str, Any]]


def _row(
    item: str, value: float | None, method: str = "direct", resolution: int = 224, **more: Any
) -> dict[str, Any]:
    return {
        "run_id": "run",
        "benchmark": "needles",
        "category": "",
        "method": method,
        "resolution": resolution,
        "rollout": 0,
        "sample_id": f"{item}#{method}",
        "item_id": item,
        "image_id": item,
        "subject": "tiny",
        "scorer": "exact",
        "value": value,
        "explanation": "",
        "answer": "B" if value else "A",
        "target": "B",
        "zooms": 0,
        "visual_tokens": 100,
        "tokens_in": None,
        "tokens_out": None,
        "invalid_calls": 0,
        "finish": "answered",
        "seconds": 1.0,
        "protocol": "p",
        "outcome": "",
    } | more


def _asked(right: int, count: int, method: str, resolution: int, tokens: int) -> Rows:
    """The first `right` of `count` questions are answered rightly."""
    return [
        _row(f"q{n:03}", float(n < right), method, resolution, visual_tokens=tokens)
        for n in range(count)
    ]


def test_accuracy_is_the_mean_over_tries_and_then_over_questions() -> None:
    rows = [_row("a", v, rollout=n) for n, v in enumerate((1.0, 1.0, 0.0, 1.0))]
    rows += [_row("b", 0.0, rollout=0), _row("b", 0.5, rollout=1)]
    cell = table(rows, seed=0)[0]
    assert cell.accuracy is not None
    assert cell.accuracy.value == pytest.approx((0.75 + 0.25) / 2)
    assert (cell.items, cell.rollouts, cell.accuracy.items) == (2, 4, 2)
    assert cell.best_of == pytest.approx(0.75)
    assert table([_row("a", 1.0)], seed=0)[0].best_of is None, "one try is no choice of tries"


def test_what_is_unscored_is_counted_and_never_wrong() -> None:
    rows = [_row("a", 1.0, rollout=0), _row("a", None, rollout=1), _row("b", None)]
    cell = table(rows, seed=0)[0]
    assert cell.accuracy is not None and cell.accuracy.value == 1.0
    assert (cell.items, cell.accuracy.items, cell.unscored) == (2, 1, 2)
    nothing = table([_row("a", None)], seed=0)[0]
    assert (nothing.accuracy, nothing.categories, nothing.unscored) == (None, {}, 1)


def test_costs_are_means_of_what_is_known() -> None:
    rows = [
        _row("a", 1.0, zooms=3, invalid_calls=1, tokens_in=50, finish="answered", outcome="box"),
        _row("b", 0.0, zooms=0, invalid_calls=0, tokens_in=None, finish="unfinished", outcome="box",
             visual_tokens=300),
    ]  # fmt: skip
    cell = table(rows, seed=0)[0]
    assert (cell.looks, cell.visual_tokens, cell.tokens_in, cell.tokens_out) == (1.5, 200, 50, None)
    assert (cell.invalid, cell.unfinished, cell.outcomes) == (0.25, 0.5, {"box": 2})
    assert table([_row("a", 1.0)], seed=0)[0].invalid is None, "nothing was called"
    rows.append(_row("c", None, visual_tokens=0, zooms=0, finish="unfinished"))
    again = table(rows, seed=0)[0]
    assert (again.looks, again.visual_tokens, again.unfinished) == (1.5, 200, 0.5)
    assert (again.items, again.unscored) == (3, 1), "what could not be asked has cost nothing"


def test_categories_are_told_apart() -> None:
    rows = [_row(f"a{n}", float(n < 3), category="small") for n in range(4)]
    rows += [_row(f"b{n}", 1.0, category="large") for n in range(2)]
    found = table(rows, seed=0)[0].categories
    assert list(found) == ["large", "small"]
    assert (found["small"].value, found["small"].items) == (0.75, 4)
    assert found["large"].value == 1.0 and found["large"].low < 0.5, "two pictures prove little"


def test_the_order_of_rows_and_other_cells_change_nothing() -> None:
    rows = [
        _row(f"q{n}", (5 * n + k + 3 * place) % 7 / 6, method, rollout=k, image_id=f"i{n // 3}",
             category=f"c{n % 2}", seconds=n / 7, answer=f"{k}")
        for place, method in enumerate(("zoom", "direct"))
        for n in range(20)
        for k in range(2)
    ]  # fmt: skip
    cells = table(rows, seed=3)
    mixed = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    assert table(mixed, seed=3) == cells
    assert [cell.method for cell in cells] == ["direct", "zoom"]
    assert table([row for row in rows if row["method"] == "zoom"], seed=3) == cells[1:]
    assert disagreements(rows) and disagreements(mixed) == disagreements(rows)


def test_a_try_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="two scores"):
        table([_row("a", 1.0, run_id="one"), _row("a", 0.0, run_id="two")], seed=0)
    with pytest.raises(ConfigError, match="two scores"):
        table([_row("a", 1.0, scorer="exact"), _row("a", 0.0, scorer="strict")], seed=0)


def _pictures(rng: np.random.Generator, count: int, each: int) -> tuple[np.ndarray, list[str]]:
    """Questions of which those about one picture go together; each is right with 0.6."""
    easy = rng.beta(0.6, 0.4, count)
    values = rng.random((count, each)) < easy[:, None]
    images = [f"i{n}" for n in range(count) for _ in range(each)]
    return values.astype(float).ravel()[:, None], images


def test_the_interval_holds_the_truth_as_often_as_it_says_where_questions_share_pictures() -> None:
    rng, together, alone = np.random.default_rng(7), 0, 0
    for _ in range(150):
        column, images = _pictures(rng, 50, 4)
        found = estimates(column, images, rng, 400)[0]
        together += found.low <= 0.6 <= found.high
        found = estimates(column, [str(n) for n in range(len(images))], rng, 400)[0]
        alone += found.low <= 0.6 <= found.high
    assert 0.91 <= together / 150 <= 0.99
    assert alone / 150 < 0.85, "as if independent, the questions promise too much"


def test_pictures_are_drawn_with_all_their_questions() -> None:
    column = np.asarray([[1.0], [1.0], [0.0]])
    drawn = resampled(column, ["a", "a", "b"], np.random.default_rng(0), 4000)[:, 0]
    assert {round(float(v), 6) for v in drawn} == {0.0, round(2 / 3, 6), 1.0}
    assert np.mean(drawn == 1) == pytest.approx(0.25, abs=0.03)


def test_many_pictures_are_drawn_in_parts_with_the_same_law() -> None:
    rng = np.random.default_rng(0)
    column = (rng.random((1000, 1)) < 0.7).astype(float)
    drawn = resampled(column, [str(n) for n in range(1000)], rng, 1500)[:, 0]
    share = column.mean()
    assert drawn.mean() == pytest.approx(share, abs=0.002)
    assert drawn.std() == pytest.approx(np.sqrt(share * (1 - share) / 1000), rel=0.1)


def test_where_every_picture_says_the_same_the_interval_is_wilsons() -> None:
    found = table(_asked(10, 10, "direct", 224, 1), seed=0)[0].accuracy
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(0.7225, abs=5e-5), 1.0)
    none = table(_asked(0, 20, "direct", 224, 1), seed=0)[0].accuracy
    assert none is not None
    assert (none.low, none.high) == (0.0, pytest.approx(0.1611, abs=5e-5))


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(5, 1, 0.21875), (0, 6, 0.03125), (3, 3, 1.0), (0, 0, 1.0), (1, 0, 1.0),
     (10, 2, 0.0385742), (15, 5, 0.0413895), (121, 59, 4.434e-6)],
)  # fmt: skip
def test_the_sign_test_has_mcnemars_exact_values(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == sign_test(worse, better) == pytest.approx(p, rel=1e-3)


def test_a_pair_is_compared_on_what_both_have_scored() -> None:
    one = [_row(f"q{n}", 1.0, "zoom") for n in range(6)] + [_row("q6", None, "zoom")]
    other = [_row(f"q{n}", float(n < 1), "direct") for n in range(7)] + [_row("q8", 0.0)]
    keys = [Key("tiny", "needles", m, 224) for m in ("zoom", "direct")]
    found = paired([*one, *other], keys[0], keys[1], seed=0)
    assert found.difference is not None
    assert (found.difference.items, found.better, found.worse) == (6, 5, 0)
    assert found.difference.value == pytest.approx(5 / 6) and found.p == 0.0625
    assert against([*one, *other], seed=0) == [found]
    back = paired([*one, *other], keys[1], keys[0], seed=0)
    assert back.difference is not None and back.difference.value == pytest.approx(-5 / 6)
    assert paired(one, *keys, seed=0).difference is None


def test_a_pair_that_never_differs_is_still_not_sure_to_be_equal() -> None:
    rows = _asked(5, 10, "direct", 224, 1) + _asked(5, 10, "zoom", 224, 1)
    found = against(rows, seed=0)[0].difference
    assert found is not None and found.value == 0
    assert found.low == -found.high == pytest.approx(-0.2775, abs=5e-5)


def test_the_cheapest_tokens_are_exact_on_a_made_up_curve() -> None:
    tokens = np.asarray([[100.0, 200.0, 400.0, 800.0]] * 6)
    right = np.asarray([[0.2, 0.4, 0.6, 0.9]] * 6)
    found, suffices = cheapest(tokens, right, np.asarray([0.1, 0.2, 0.3, 0.6, 0.75, 0.91]))
    assert found[:5] == pytest.approx([100, 100, 150, 400, 600])
    assert np.isnan(found[5]), "nothing is supposed beyond the budgets tried"
    assert suffices.tolist() == [True, True, False, False, False, False]


def test_a_budget_that_a_cheaper_one_beats_is_passed_over() -> None:
    tokens = np.asarray([[400.0, 100.0, 200.0]])
    right = np.asarray([[0.9, 0.5, 0.3]])
    assert cheapest(tokens, right, np.asarray([0.7]))[0] == pytest.approx(250)
    dear = cheapest(np.asarray([[300.0, 100.0]]), np.asarray([[0.5, 0.5]]), np.asarray([0.5]))
    assert dear[0] == pytest.approx(100)


def _sweep(count: int = 200) -> Rows:
    """Uniform viewing right on 60 %; zooming reaches that half-way between 300 and 500 tokens."""
    half = count // 2
    return [
        *_asked(half, count, "direct", 224, 50),
        *_asked(half + count // 10, count, "direct", 3840, 1000),
        *_asked(count // 4, count, "zoom", 224, 100),
        *_asked(half, count, "zoom", 448, 300),
        *_asked(half + count // 5, count, "zoom", 672, 500),
    ]


def test_the_saving_is_interpolated_between_budgets() -> None:
    found = saving(_sweep(), "tiny", "needles", "zoom", seed=0)
    assert found.aim == pytest.approx(0.6)
    assert (found.tokens, found.tokens_against) == (pytest.approx(400), pytest.approx(1000))
    assert found.value == pytest.approx(0.6)
    assert found.low is not None and found.high is not None
    assert found.low < 0.6 < found.high and found.reached == 1.0 and not found.at_least
    closer = saving(_sweep(), "tiny", "needles", "zoom", seed=0, margin=0.1)
    assert closer.value == pytest.approx(0.7)


def test_an_aim_that_is_not_reached_is_not_extrapolated() -> None:
    rows = _sweep()
    short = [row for row in rows if row["method"] == "direct" or row["resolution"] < 672]
    found = saving(short, "tiny", "needles", "zoom", seed=0)
    assert found.value is None and found.reached is not None and found.reached < 0.05
    assert verdict(found) == "not measurable: zoom gets to 50.0%, short of 60.0%"
    level = [*_asked(120, 200, "direct", 3840, 1000), *_asked(120, 200, "zoom", 672, 450)]
    for n, row in enumerate(level[200:]):
        row["value"] = float((n + 40) % 200 < 120)  # as often right, but on other questions
    found = saving(level, "tiny", "needles", "zoom", seed=0)
    assert found.value == pytest.approx(0.55) and found.at_least
    assert (found.low, found.high) == (None, None), "half the draws do not reach it"
    assert found.reached is not None and 0.3 < found.reached < 0.7
    assert verdict(found).startswith("not decided")


def test_the_saving_counts_only_questions_that_are_scored_everywhere() -> None:
    rows = _sweep()
    for row in rows:
        if row["method"] == "zoom" and row["resolution"] == 448 and row["item_id"] < "q050":
            row["value"] = None
    assert saving(rows, "tiny", "needles", "zoom", seed=0).items == 150
    for row in rows:
        row["visual_tokens"] = None
    found = saving(rows, "tiny", "needles", "zoom", seed=0)
    assert found.value is None and found.reason.startswith("no question")
    assert saving([], "tiny", "needles", "zoom", seed=0).value is None


def test_blind_methods_are_not_equal_at_any_price() -> None:
    blind = [*_asked(0, 40, "direct", 3840, 1000), *_asked(0, 40, "zoom", 224, 10)]
    found = saving(blind, "tiny", "needles", "zoom", seed=0)
    assert verdict(found) == "not measurable: direct at 3840 is not surely better than guessing"
    guess = [*_asked(22, 40, "direct", 3840, 1000), *_asked(22, 40, "zoom", 224, 10)]
    assert saving(guess, "tiny", "needles", "zoom", seed=0).value == pytest.approx(0.99)
    found = saving(guess, "tiny", "needles", "zoom", seed=0, chance=0.5)
    assert found.value is None


def test_every_method_has_its_saving() -> None:
    found = savings(_sweep(), seed=0)
    assert [one.method for one in found] == ["direct", "zoom"]
    assert found[1] == saving(_sweep(), "tiny", "needles", "zoom", seed=0)
    assert found[0].value == pytest.approx(0.0), "uniform viewing needs all that it has"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.45, 0.55, "within"), (0.40, 0.60, "within"), (0.61, 0.8, "above"), (0.61, None, "above"),
     (0.1, 0.39, "below"), (None, 0.39, "below"), (0.3, 0.5, "not decided"),
     (0.5, 0.7, "not decided"), (0.5, None, "not decided"), (None, 0.5, "not decided"),
     (None, None, "not decided"), (0.3, 0.7, "not decided")],
)  # fmt: skip
def test_the_verdict_is_the_intervals(low: float | None, high: float | None, words: str) -> None:
    key = Key("tiny", "needles", "direct", 3840)
    found = Saving("tiny", "needles", "zoom", key, 0.0, 9, 9, value=0.5, low=low, high=high)
    assert verdict(found).startswith(words) and verdict(found).endswith("the published 40–60 %")


def test_the_rarest_difference_is_told_first() -> None:
    rows = []
    for n in range(16):
        rows += [_row(f"q{n:02}", float(n == 15), "direct"), _row(f"q{n:02}", float(n < 8), "zoom")]
    found = disagreements(rows)
    assert [d.item_id for d in found] == ["q15", *(f"q{n:02}" for n in range(8))]
    assert found[0].tells == "direct at 224 is right, zoom at 224 is not"
    assert (found[0].bits, found[1].bits) == (4.0, 1.0)
    assert [(s.method, s.value, s.answer) for s in found[0].said] == [
        ("direct", 1.0, "B"),
        ("zoom", 0.0, "A"),
    ]
    assert len(disagreements(rows, limit=3)) == 3


def test_a_method_that_loses_at_a_larger_budget_disagrees_with_itself() -> None:
    rows = [_row("a", 1.0, "zoom", 224), _row("a", 0.0, "zoom", 448), _row("b", 1.0, "zoom", 224)]
    rows += [_row("b", 1.0, "zoom", 448), _row("c", None, "zoom", 224), _row("c", 0.0, "zoom", 448)]
    found = disagreements(rows)
    assert [d.item_id for d in found] == ["a"], "what is unscored disagrees with nothing"
    assert found[0].tells == "zoom at 224 is right, zoom at 448 is not"


def test_methods_at_different_budgets_are_not_set_against_each_other() -> None:
    assert disagreements([_row("a", 1.0, "zoom", 224), _row("a", 0.0, "direct", 448)]) == []


def test_records_are_plain_enough_for_json() -> None:
    rows = _sweep(20)
    records = [*table(rows, seed=0, draws=50), *savings(rows, seed=0, draws=50)]
    told = [plain(r) for r in [*records, *against(rows, seed=0, draws=50), *disagreements(rows)]]
    assert json.loads(json.dumps(told, allow_nan=False))[0]["accuracy"]["value"] == 0.5
    assert [t["verdict"].split()[0] for t in told if "verdict" in t]
    assert next(iter(gathered(rows))) == Key("tiny", "needles", "direct", 224)
