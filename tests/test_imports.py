"""Every module imports, and says what it is."""

from __future__ import annotations

import ast
import importlib.resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path for folder in ("pipeline", "manifests") for path in (ROOT / folder).rglob("*.py")
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=relative)
def test_a_package_holds_a_docstring_at_most(path: Path) -> None:
    assert len(ast.parse(path.read_text("utf-8")).body) == 1


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_module_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_every_folder_of_the_design_is_a_package() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in MODULES}
    assert folders <= {relative(path.parent) for path in MODULES if path.name == "__init__.py"}


def test_what_ships_besides_code_is_found_in_the_package() -> None:
    queries = importlib.resources.files("pipeline.report").joinpath("queries").iterdir()
    assert {query.name for query in queries} >= {"budgets.sql", "reasons.sql"}
    assert importlib.resources.files("pipeline.report").joinpath("page.css").is_file()
