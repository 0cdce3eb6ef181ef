"""The command line answers at once, and carries nothing it does not need for that."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

HEAVY = ("torch", "ray", "transformers", "openai", "datasets", "pandas", "duckdb", "pyarrow", "PIL")


def run(*arguments: str, code: str = "from pipeline.cli.app import main; main()") -> str:
    """What `cofpipe ARGUMENTS` prints on stdout."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_help_loads_no_heavy_package() -> None:
    code = "import sys, pipeline.cli.app; print('\\n'.join(sys.modules))"
    loaded = {name.split(".")[0] for name in run(code=code).split()}
    assert not loaded & set(HEAVY)


def test_help_costs_less_than_a_third_of_a_second() -> None:
    """Processor time, best of three: a busy machine does not make the command slower."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) <= 0.3


def test_help_lists_the_commands_that_are_built_and_no_others() -> None:
    listed = re.findall(r"^  ([a-z]+) ", run("--help").partition("Commands:")[2], re.MULTILINE)
    built = [
        *("synthesize", "import", "runs", "sql", "show", "report"),
        *("export", "preflight", "decontaminate", "card", "push", "rehydrate", "prompts"),
        *("fsck", "gc", "doctor", "eval", "train", "models"),
    ]
    assert listed == built


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert run("--version") == f"cofpipe {version('cofpipe')}\n"
