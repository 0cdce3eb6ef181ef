"""The page around figures and gallery: one file, nothing fetched, nothing run.

The content security policy allows the one style sheet by its digest and pictures inside the page;
no script, no frame, no address outside.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from pipeline.report import figures, gallery
from pipeline.report.html import Html, join, tag
from pipeline.report.pictures import decode, read_pictures
from pipeline.report.prompts import prompt_cards, prompts_summary
from pipeline.report.rows import Question, Refusal, questions, refusals, rows

REFUSALS = 12
"""Rejected rows shown."""


def write_report(
    connection: duckdb.DuckDBPyConnection, run_dir: Path, out: Path, *, max_images: int = 24
) -> Path:
    """The run's page, written beside its final name and renamed; returns where it is.

    `connection` has the views of this one run. At most `max_images` questions are shown.
    """
    return put(render(connection, run_dir, max_images=max_images), out)


def put(page: str, out: Path) -> Path:
    """Write a page beside its final name and rename it; returns where it is."""
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = out.with_name(f".{out.name}.{os.getpid()}")
    hidden.write_text(page, encoding="utf-8")
    hidden.replace(out)
    return out


def render(connection: duckdb.DuckDBPyConnection, run_dir: Path, *, max_images: int) -> str:
    """The page as text; the same run gives the same page."""
    run = next(iter(rows(connection, "run")), {"run_id": run_dir.name})
    told = _prompts if run.get("kind") == "prompts" else _trajectories
    return document(str(run["run_id"]), told(run, connection, run_dir, max_images))


def _trajectories(
    run: dict[str, Any], connection: duckdb.DuckDBPyConnection, run_dir: Path, max_images: int
) -> Html:
    shown = questions(connection, max_images)
    refused = refusals(connection, REFUSALS) if max_images else []
    counts = rows(connection, "counts")[0]
    said = [counts["sources"], counts["policies"]]
    return tag(
        "main",
        _title(run, said, figures.summary(connection)),
        _section("figures", "By budget", figures.budget_figures(connection)),
        _section("reasons", "Why rows were rejected", figures.reasons(connection)),
        _section("audit", "What the choice did to the data", figures.audit(connection)),
        _section("gallery", "Trajectories", _legend(), *_cards(shown, run_dir)),
        _section("rejected", "Rejected", *_refusals(refused, run_dir)) if refused else None,
        _footer(run),
    )


def _prompts(
    run: dict[str, Any], connection: duckdb.DuckDBPyConnection, run_dir: Path, max_images: int
) -> Html:
    said, summary = prompts_summary(connection)
    return tag(
        "main",
        _title(run, [said], summary),
        _section("gallery", "Visual prompts", *prompt_cards(connection, run_dir, max_images)),
        _section("reasons", "Why rows were rejected", figures.reasons(connection)),
        _footer(run, "prompts"),
    )


def document(title: str, body: Html, *more: str) -> str:
    """A page of its own; `more` are style sheets of this package besides `page.css`."""
    here = files("pipeline.report")
    style = "".join(here.joinpath(name).read_text("utf-8") for name in ("page.css", *more))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · cofpipe"),
        tag("style", Html(style)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _title(run: dict[str, Any], said: Sequence[str | None], summary: Html) -> Html:
    facts = [*said, run.get("status"), _when(run)]
    return tag(
        "header",
        tag("p", "cofpipe run", class_="quiet"),
        tag("h1", str(run["run_id"])),
        tag("p", " · ".join(str(part) for part in facts if part), class_="quiet"),
        summary,
        class_="top",
    )


def _when(run: dict[str, Any]) -> str:
    moment = run.get("finished_at") or run.get("started_at")
    return "" if moment is None else str(moment)[:16]


def _section(name: str, title: str, *children: Html | str | None) -> Html:
    return tag("section", tag("h2", title), *children, id=name)


def _legend() -> Html:
    return tag(
        "p",
        "Each picture is shown at the sharpness of that budget's first view. ",
        tag("span", "Numbered boxes", class_="mark zoomed"),
        " were zoomed, in this order; ",
        tag("span", "thin boxes", class_="mark named"),
        " were named only; the ",
        tag("span", "dashed box", class_="mark target"),
        " is the target, which the policy never sees.",
        class_="quiet legend",
    )


def _cards(shown: list[Question], run_dir: Path) -> list[Html]:
    if not shown:
        return [tag("p", "No trajectory was kept.", class_="quiet")]
    pictures = read_pictures(run_dir, "trajectories", [q.sample_id for q in shown])
    return [
        gallery.question_card(question, decode(pictures.get(question.sample_id)), place)
        for place, question in enumerate(shown, 1)
    ]


def _refusals(refused: list[Refusal], run_dir: Path) -> list[Html]:
    pictures = read_pictures(run_dir, "rejected", [r.sample_id for r in refused])
    cards = [gallery.refusal_card(r, decode(pictures.get(r.sample_id))) for r in refused]
    return [tag("div", *cards, class_="refusals")]


def _footer(run: dict[str, Any], kind: str = "trajectories") -> Html:
    query = f"cofpipe sql --run {run['run_id']} 'select * from {kind} limit 5'"
    return join(
        tag(
            "footer",
            tag("p", "Every figure here is a query over the run’s views: ", tag("code", query)),
        )
    )
