"""Laws of settings: where they come from, what is refused, and what changes what is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import Config, config_from
from pipeline.config_files import RECIPES, load_config
from pipeline.errors import ConfigError
from pipeline.geometry import RESOLUTIONS


@pytest.fixture(autouse=True)
def _no_runs_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COFPIPE_RUNS", raising=False)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# Where settings come from


def test_without_anything_the_defaults_hold() -> None:
    assert load_config() == Config()
    assert Config().task.budgets == RESOLUTIONS


def test_a_later_file_goes_before_an_earlier_one_and_keeps_what_it_does_not_name(
    tmp_path: Path,
) -> None:
    first = written(tmp_path, "a.toml", "seed = 1\n[episode]\nlooks = 2\nturns = 20\n")
    second = written(tmp_path, "b.toml", "[episode]\nlooks = 3\n")
    config = load_config([first, second])
    assert (config.seed, config.episode.looks, config.episode.turns) == (1, 3, 20)


def test_sets_go_before_files_and_flags_before_sets(tmp_path: Path) -> None:
    path = written(tmp_path, "a.toml", 'seed = 1\nsource = "file"\n[budget]\nusd = 1\n')
    sets = ["seed=2", "source=set"]
    config = load_config([path], sets, seed=3)
    assert (config.budget.usd, config.source, config.seed) == (1.0, "set", 3)


def test_a_later_set_goes_before_an_earlier_one() -> None:
    assert load_config(sets=["seed=2", "seed=5"]).seed == 5


def test_a_flag_that_is_none_was_not_given() -> None:
    assert load_config(sets=["seed=4"], seed=None, runs_dir=None).seed == 4


def test_every_flag_reaches_its_setting() -> None:
    config = load_config(
        source="folder", seed=7, runs_dir="out", budget_usd=1.5, budget_tokens=9, budget_hours=2.0
    )
    assert (config.source, config.seed, config.run.dir) == ("folder", 7, "out")
    assert config.budget.model_dump() == {"usd": 1.5, "tokens": 9, "hours": 2.0}


def test_cofpipe_runs_names_the_folder_unless_anything_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COFPIPE_RUNS", "/from/environment")
    path = written(tmp_path, "a.toml", '[run]\ndir = "file"\n')
    assert load_config().run.dir == "/from/environment"
    assert load_config([path]).run.dir == "file"
    assert load_config([path], ["run.dir=set"]).run.dir == "set"
    assert load_config([path], ["run.dir=set"], runs_dir="flag").run.dir == "flag"


def test_an_empty_cofpipe_runs_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFPIPE_RUNS", "")
    assert load_config().run.dir == Config().run.dir


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("seed=12", "seed", 12),
        ("budget.usd=0.5", "budget.usd", 0.5),
        ("source=hf:some/name@split", "source", "hf:some/name@split"),
        ("source = a=b ", "source", "a=b"),
        ("seed = 3", "seed", 3),
        ("columns.image=photo", "columns", {"image": "photo"}),
        ('segmenter.checkpoint="vit b"', "segmenter.checkpoint", "vit b"),
        ("task.budgets=[672, 224]", "task.budgets", (224, 672)),
    ],
)
def test_a_set_is_read_as_toml_where_it_is_toml_and_as_text_elsewhere(
    text: str, name: str, value: Any
) -> None:
    found: Any = load_config(sets=[text])
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value


# Budgets


@pytest.mark.parametrize("text", ["224,672", "672, 224", "672,224,672", " 224 ,672"])
def test_budgets_are_read_from_text_ascending_and_each_once(text: str) -> None:
    assert load_config(sets=[f"task.budgets={text}"]).task.budgets == (224, 672)


def test_a_single_budget_is_enough() -> None:
    assert load_config(sets=["task.budgets=448"]).task.budgets == (448,)


@pytest.mark.parametrize("text", ["", "224,", "55", "0", "-224", "large", "224.5", "[]", "true"])
def test_budgets_that_cannot_be_kept_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Setting 'task\.budgets"):
        load_config(sets=[f"task.budgets={text}"])


# What is refused


@pytest.mark.parametrize(
    ("text", "name", "near"),
    [
        ("sede=1", "sede", "seed"),
        ("task.budget=224", "task.budget", "budgets"),
        ("episode.look=1", "episode.look", "looks"),
        ("run.worker=1", "run.worker", "workers"),
        ("segmentor.device=cpu", "segmentor", "segmenter"),
    ],
)
def test_a_mistyped_setting_names_the_nearest(text: str, name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=[text])
    assert caught.value.message == f"There is no setting '{name}'."
    assert caught.value.fix == f"Did you mean '{near}'?"


def test_a_setting_like_no_other_is_told_all_there_are() -> None:
    with pytest.raises(ConfigError, match="Known: looks, objections, slips, turns"):
        config_from({"episode": {"zzzz": 1}})


@pytest.mark.parametrize(
    "text",
    ["episode.looks=-1", "episode.turns=1", "seed=x", "task.kind=quiz", "run.workers=0", "task=3"],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=[text])
    assert f"'{text.partition('=')[0]}'" in caught.value.message


def test_a_set_without_a_value_or_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no value"):
        load_config(sets=["seed"])
    with pytest.raises(ConfigError, match="below a setting"):
        load_config(sets=["seed=1", "seed.more=2"])


@pytest.mark.parametrize("data", [None, b"seed = ", b"\xff\xfe", b"seed = 1\nseed = 2\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "broken.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config([path])


# Frozen, and what a run's identity rests on


@pytest.mark.parametrize("part", ["", "task", "policy", "segmenter", "episode", "run", "budget"])
def test_settings_are_frozen(part: str) -> None:
    settings: Any = getattr(Config(), part) if part else Config()
    name = next(iter(type(settings).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, None)


def test_settings_come_back_from_what_they_say_of_themselves() -> None:
    config = load_config(sets=["task.budgets=224,672", "columns.image=photo", "budget.usd=3"])
    assert config_from(config.describe()) == config


@pytest.mark.parametrize(
    "text", ["run.workers=3", "run.dir=there", "run.part_rows=5", "budget.usd=1", "source=folder"]
)
def test_how_a_run_is_done_does_not_change_what_is_made(text: str) -> None:
    assert load_config(sets=[text]).semantic() == Config().semantic()


@pytest.mark.parametrize(
    "text",
    [
        "seed=1",
        "task.budgets=224",
        "task.per_image=2",
        "segmenter.checkpoint=vit_b",
        "episode.looks=1",
        "episode.slips=1",
        "policy.model=m",
        "policy.temperature=1",
        "columns.image=photo",
        "recipe=other",
    ],
)
def test_what_changes_what_is_made_is_semantic(text: str) -> None:
    assert load_config(sets=[text]).semantic() != Config().semantic()


def test_how_and_where_work_is_done_is_not_semantic() -> None:
    left_out = {"run", "budget", "source", "endpoint", "prices", "rows", "shards", "prompts"}
    assert set(Config().semantic()) == set(Config.model_fields) - left_out


@pytest.mark.parametrize(
    "url", ["http://me:secret@host/v1", "https://host/v1?key=secret", "ftp://host", "host:8000"]
)
def test_an_endpoint_url_holds_no_key(url: str) -> None:
    with pytest.raises(ConfigError, match="endpoint") as error:
        load_config(sets=[f"endpoint.urls={url}"])
    assert "secret" not in str(error.value)


def test_endpoints_are_listed_with_commas_or_as_a_list() -> None:
    urls = ("http://a/v1", "http://b/v1")
    for text in ("http://a/v1, http://b/v1", '["http://a/v1", "http://b/v1"]'):
        assert load_config(sets=[f"endpoint.urls={text}"]).endpoint.urls == urls


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_is_named_like_its_file_and_has_settings_that_exist(name: str) -> None:
    config = load_config([Path(name)])
    assert config.recipe == name and config.rows


def test_a_recipe_that_extends_another_changes_only_what_it_says() -> None:
    small, large = (load_config([Path(name)]) for name in ("mm-cof-3k", "mm-cof-10k"))
    told = {"recipe": large.recipe, "source": large.source, "rows": 10_000, "shards": large.shards}
    assert small.model_copy(update=told) == large
    assert set(small.balance.resolution) == {str(budget) for budget in small.task.budgets}


def test_a_balance_without_a_number_of_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="set rows"):
        load_config(sets=["balance.looks.0=1"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task.kind=written", "needs a model"),
        ("filters.solved=sometimes", "task.rollouts"),
        ("filters.unnecessary=reject", "checks.probes"),
        ("balance.looks.4=1", "0, 1, 2"),
        ("task.kind=needles,needles", "several different"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(sets=[text])


def test_budgets_have_names() -> None:
    assert load_config(sets=["task.budgets=doubling"]).task.budgets == (224, 448, 896, 1792, 3840)
    assert len(load_config(sets=["task.budgets=paper"]).task.budgets) == 8
