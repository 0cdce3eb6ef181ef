"""What works on this machine, what does not, and what to do about it.

Every check is one function that returns what it found; none of them prints, none ever shows the
value of a key, and none raises but the one of an endpoint that was named, when it cannot be asked.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.agent.chat import ChatModel

State = Literal["ok", "warn", "fail"]

RAY_FLOOR = (2, 54)
"""Below it, anyone who reaches a cluster's dashboard can delete its jobs (CVE-2026-27482)."""
DISK_BYTES = 2_000_000_000
MEMORY_BYTES = 3_000_000_000
OPEN_FILES = 1024
KEYS = ("OPENAI_API_KEY", "COFPIPE_API_KEY")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(runs_dir: Path, *, start_ray: bool) -> list[Check]:
    """Every check, in the order in which one would mend things."""
    checks: list[Callable[[], Check]] = [
        python, packages, torch, torchvision, pocket_weights, ray_version,
        lambda: runs_folder(runs_dir), lambda: disk(runs_dir), memory, open_files, endpoint_key,
        servers,
    ]  # fmt: skip
    if start_ray:
        checks.append(ray_start)
    return [check() for check in checks]


def python() -> Check:
    where = f"{platform.system()} {platform.machine()}"
    return Check("Python", "ok", f"{platform.python_version()} on {where}")


def packages() -> Check:
    """Whether everything the distribution asks for is installed, in the range it asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("cofpipe") or ()]
    except metadata.PackageNotFoundError:
        return Check("Packages", "fail", "cofpipe is not installed", "Run: pip install -e .")
    wrong = []
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} is outside {requirement.specifier}")
    if wrong:
        return Check(
            "Packages", "fail", "; ".join(wrong), "Run: pip install -e . (all in one command)"
        )
    return Check("Packages", "ok", f"{len(needed)} installed, all within their ranges")


def torch() -> Check:
    try:
        library = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return Check("torch", "fail", str(error), "Run: pip install 'torch>=2.6,<2.14'")
    detail = f"{library.__version__}, {library.get_num_threads()} threads"
    if library.cuda.is_available():
        return Check("torch", "ok", f"{detail}, {library.cuda.get_device_name(0)}")
    if getattr(library.backends, "mps", None) and library.backends.mps.is_available():
        return Check("torch", "ok", f"{detail}, Apple GPU")
    return Check("torch", "ok", f"{detail}, no accelerator: pocket models are meant for this")


def torchvision() -> Check:
    """Absent is fine; present but broken is not, because transformers trusts that it imports."""
    if importlib.util.find_spec("torchvision") is None:
        return Check("torchvision", "ok", "not installed, not needed")
    try:
        library = importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        fix = "Run: pip uninstall torchvision, or install the build that matches torch."
        return Check("torchvision", "fail", f"installed but does not load: {first}", fix)
    return Check("torchvision", "ok", f"{library.__version__}")


def pocket_weights() -> Check:
    """Whether the checkpoint that ships in the package loads into the real classes."""
    from pipeline.errors import CofpipeError

    try:
        from pipeline.models import sam

        sam.load("pocket")
    except CofpipeError as error:
        return Check("Pocket SAM", "fail", error.message, error.fix or "Reinstall cofpipe.")
    except (ImportError, OSError) as error:
        return Check("Pocket SAM", "fail", str(error), "Reinstall cofpipe.")
    return Check("Pocket SAM", "ok", "the shipped checkpoint loads")


def ray_version() -> Check:
    try:
        found = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Check(
            "Ray", "fail", "not installed", "Run: pip install -e . (or use --address none)"
        )
    numbers = tuple(int(part) for part in found.split(".")[:2])
    if numbers < RAY_FLOOR:
        return Check("Ray", "fail", f"{found} has an open hole", "Upgrade to Ray 2.58 or newer.")
    return Check("Ray", "ok", found)


def ray_start() -> Check:
    """Start and stop a cluster of one core, never joining a running one."""
    try:
        ray = importlib.import_module("ray")
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
        ray.shutdown()
    except Exception as error:  # noqa: BLE001  Ray raises plain `Exception` when it cannot start
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return Check("Ray start", "fail", first, "Use --address none: no Ray, same rows.")
    return Check("Ray start", "ok", "a local cluster started and stopped")


def runs_folder(runs_dir: Path) -> Check:
    """Whether files can be made there, and moved into place."""
    place = runs_dir if runs_dir.exists() else runs_dir.absolute().parent
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".doctor-") as folder:
            first = Path(folder) / "a"
            first.write_bytes(b"x")
            (Path(folder) / "b").hardlink_to(first)
    except OSError as error:
        fix = "Choose another with --runs-dir or COFPIPE_RUNS."
        return Check("Runs directory", "fail", f"{place}: {error.strerror}", fix)
    return Check("Runs directory", "ok", f"{runs_dir}, writable")


def disk(runs_dir: Path) -> Check:
    place = runs_dir if runs_dir.exists() else runs_dir.absolute().parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check(
            "Free disk", "warn", f"{place}: {error.strerror}", "Choose another runs directory."
        )
    detail = f"{free / 1e9:.1f} GB beside the runs"
    if free < DISK_BYTES:
        return Check("Free disk", "warn", detail, "A row with a photograph takes about 1 MB.")
    return Check("Free disk", "ok", detail)


def memory() -> Check:
    """Memory that can be had now, where the system tells."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return Check("Free memory", "ok", "not told by this system")
    free = next(int(line.split()[1]) for line in text.splitlines() if "MemAvailable" in line) * 1024
    detail = f"{free / 1e9:.1f} GB"
    if free < MEMORY_BYTES:
        return Check("Free memory", "warn", detail, "Use one worker: --address none.")
    return Check("Free memory", "ok", detail)


def open_files() -> Check:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        return Check("Open files", "warn", f"limit {soft}", f"Raise it: ulimit -n {4 * OPEN_FILES}")
    return Check("Open files", "ok", f"limit {soft}")


def endpoint_key() -> Check:
    """Whether a key is set, never what it is; the embedded default needs none."""
    found = [name for name in KEYS if os.environ.get(name)]
    if found:
        return Check("Endpoint key", "ok", f"{' and '.join(found)} is set")
    return Check("Endpoint key", "ok", "none set: needed for policy.kind=endpoint only")


def servers() -> Check:
    """Which servers of models run here: what `policy.kind=auto` would find."""
    from pipeline.agent.discovery import find_servers
    from pipeline.cli.printing import clean

    found = [f"{s.name} at {s.url} ({_few(s.models)})" for s in find_servers()]
    return Check("Local servers", "ok", clean("; ".join(found)) or "none on the usual ports")


def endpoint(url: str, model: str | None) -> Check:
    """Ask a server for boxes; raises `ConfigError` or `ModelError` when it cannot be asked."""
    return asyncio.run(_asked(url, model))


async def coordinates(model: ChatModel) -> Check:
    """Which coordinates a model speaks, found out by asking it for boxes that are known."""
    from pipeline.agent.families import FAMILIES
    from pipeline.agent.probe import probe
    from pipeline.cli.printing import clean

    verdict = await probe(model)
    speaks = f"{clean(model.name)} speaks {verdict.best}"
    seen = f"IoU {verdict.iou:.2f}, the next {verdict.iou - verdict.lead:.2f}"
    seen = f"{seen}, {verdict.usable} of {verdict.asked} replies usable"
    if not verdict.confident:
        fix = "Set policy.family only if the model's card names its coordinates."
        return Check("Coordinates", "warn", f"unclear: if any, {speaks} ({seen})", fix)
    if not verdict.best.families:
        fix = f"Use a model that speaks as one of these: {', '.join(FAMILIES)}."
        return Check("Coordinates", "warn", f"{speaks} ({seen}), as no known family does", fix)
    named = _family_by_name(model.name)
    first, *others = sorted(verdict.best.families, key=lambda name: name != named)
    use = f"--set policy.family={first}"
    if others and first != named:
        use += f" (or {', '.join(others)}: the same boxes, pictures of other sizes)"
    if named is not None and first != named:
        fix = f"Its name says {named}: it must be told, {use}."
        return Check("Coordinates", "warn", f"{speaks} ({seen})", fix)
    return Check("Coordinates", "ok", f"{speaks} ({seen}): {use}")


async def _asked(url: str, name: str | None) -> Check:
    from pipeline.agent.endpoint import open_endpoint
    from pipeline.config import Endpoint

    model = await open_endpoint(Endpoint(urls=(url,), tries=2), name)
    try:
        return await coordinates(model)
    finally:
        await model.close()


def _family_by_name(name: str) -> str | None:
    from pipeline.agent.families import family_of
    from pipeline.errors import ConfigError

    try:
        return family_of(name, None).name
    except ConfigError:
        return None


def _few(models: tuple[str, ...]) -> str:
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return ", ".join(models[:3]) + more if models else "no model"
