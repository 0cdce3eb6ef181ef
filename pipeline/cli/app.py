"""The command line as a whole: which commands there are, and what an error becomes.

Heavy packages are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Annotated

import typer

from pipeline.cli import (
    card,
    checks,
    decontaminate,
    eval,
    export,
    importing,
    models,
    preflight,
    prompts,
    push,
    rehydrate,
    report,
    runs,
    synthesize,
    train,
)
from pipeline.cli.printing import clean, say
from pipeline.errors import CofpipeError

LONGEST = 500
"""Characters of an error's sentence that are shown."""

app = typer.Typer(
    name="cofpipe",
    help="Turn images into data that teaches and prompts vision models to focus.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(synthesize.synthesize)
app.command("import")(importing.import_)
app.command()(runs.runs)
app.command()(runs.sql)
app.command()(runs.show)
app.command()(report.report)
app.command()(export.export)
app.command()(preflight.preflight)
app.command()(decontaminate.decontaminate)
app.command()(card.card)
app.command()(push.push)
app.command()(rehydrate.rehydrate)
app.command()(prompts.prompts)
app.command()(checks.fsck)
app.command()(checks.gc)
app.command()(checks.doctor)
app.add_typer(eval.app, name="eval")
app.add_typer(train.app, name="train")
app.add_typer(models.app, name="models")


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an expected error is one sentence, its fix, and its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    _survive_odd_text()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app([word for word in words if word != "--debug"])
    except CofpipeError as error:
        _explain(error, error.message, error.fix, debug)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        _explain(error, f"{error.strerror or error}{place}.", None, debug)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cofpipe {version('cofpipe')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and stop."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of expected errors too.")
    ] = False,
) -> None:
    """Turn images into data that teaches and prompts vision models to focus."""


def _explain(error: Exception, message: str, fix: str | None, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    short = (
        message if len(message) <= LONGEST else f"{message[:LONGEST]}… (--debug shows all of it)"
    )
    say(f"Error: {clean(short)}")
    if fix:
        say(clean(fix))


def _survive_odd_text() -> None:
    """File names need not be text: print what cannot be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
