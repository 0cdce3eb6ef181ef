"""A push can be stopped anywhere and done again, and shows nothing that must not be shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from huggingface_hub import HfApi

from pipeline.errors import CofpipeError, ConfigError
from pipeline.synthesis.card import FILE
from pipeline.synthesis.publish import Publication, gathered, refusals
from tests.loopback.hub import LoopbackHub
from tests.synthesis.published_runs import looked, make_run
from tests.synthesis.pushing import push_run

pytestmark = pytest.mark.xdist_group("push")

SHARDS, KEPT = 64, 112
SMALL = {"shard_bytes": 20_000, "commit_files": 16}
"""So that every part of the run is a file of its own, and the push several commits."""
TOKEN = "hf_thisIsNoToken"
LOADS = """
import json, sys
from datasets import load_dataset
whole = load_dataset("me/data", split="train")
streamed = load_dataset("me/data", "trajectories", split="train", streaming=True)
first = next(iter(streamed))
looks = load_dataset("me/data", "steps", split="train", streaming=True)
from pipeline.synthesis.card_check import check
from pipeline.synthesis.published_dataset import open_dataset
dataset = open_dataset("hf://datasets/me/data")
with dataset.connection() as connection:
    count = "select resolution, count(*) from trajectories group by 1 order by 1"
    asked = connection.execute(count)
    told = {"rows": whole.num_rows, "size": whole[0]["image"].size, "first": first["sample_id"],
            "streamed": sum(1 for _ in streamed), "looks": sum(1 for _ in looks),
            "stream_size": first["image"].size, "sql": asked.fetchall(), "wrong": check(dataset)}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("runs"), "many", KEPT * 8 // 7, SHARDS)
    looked(made)
    return made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("runs"), "small", 16, 4)
    looked(made)
    return made


@pytest.fixture(scope="module", autouse=True)
def reachable() -> Iterator[None]:
    """The client reads these once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "store", page=7) as running:
        yield running


def client(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=TOKEN)


def environment(hub: LoopbackHub, home: Path) -> dict[str, str]:
    told = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home)}
    known = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE",)}
    return known | told | {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path.cwd())}


def child(hub: LoopbackHub, run_dir: Path, home: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from tests.synthesis.pushing import push_run;"
        f"push_run(Path({str(run_dir)!r}), **{SMALL!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code], env=environment(hub, home))


class Killer:
    """Ends a process at the n-th event of a kind, before the server answers."""

    def __init__(self, event: str, number: int) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = threading.Event()
        self._event, self._left = event, number

    def __call__(self, event: str) -> bool:
        self._left -= event == self._event
        if event != self._event or self._left != 0:
            return False
        self.ready.wait()
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return True


@pytest.fixture(scope="module")
def reference(
    run_dir: Path, tmp_path_factory: pytest.TempPathFactory, reachable: None
) -> dict[str, str]:
    """The repository after one push that nothing stopped."""
    with LoopbackHub(tmp_path_factory.mktemp("reference"), page=7) as hub:
        first = push_run(run_dir, client(hub), **SMALL)
        assert (first.created, first.commits) == (True, 5)
        files, seen = hub.files("me/data"), hub.seen.copy()
        again = push_run(run_dir, client(hub), **SMALL)
        assert (again.created, again.commits, again.sent_bytes) == (False, 0, 0)
        assert {state for state, _ in again.files.values()} == {"same"}
        assert hub.files("me/data") == files
        assert hub.seen["commit"] == seen["commit"] and hub.seen["put"] == seen["put"]
        assert hub.seen["preupload"] == seen["preupload"]
    return files


def test_every_part_is_a_file_and_no_commit_is_long(reference: dict[str, str]) -> None:
    shards = [path for path in reference if path.startswith("data/trajectories/")]
    assert len(shards) == SHARDS
    assert shards[-1] == "data/trajectories/train-00063-of-00064.parquet"


@pytest.mark.parametrize(
    "moments",
    [
        [("half", 20), ("commit", 2), ("committed", 2)],
        pytest.param(
            [("put", n) for n in (1, 5, 9, 13)] + [("half", 2), ("committed", 1)] * 2,
            marks=pytest.mark.survive,
        ),
    ],
    ids=["one of each", "many"],
)
def test_a_push_that_is_killed_and_repeated_ends_like_one_push(
    moments: list[tuple[str, int]],
    run_dir: Path,
    hub: LoopbackHub,
    tmp_path: Path,
    reference: dict[str, str],
) -> None:
    for event, number in moments:
        killer = Killer(event, number)
        hub.watch = killer
        killer.process = child(hub, run_dir, tmp_path / "home")
        killer.ready.set()
        assert killer.process.wait(150) == -signal.SIGKILL, (event, number)
        assert FILE not in hub.files("me/data")
    hub.watch = lambda event: False
    done = push_run(run_dir, client(hub), **SMALL)
    assert done.commits and hub.files("me/data") == reference
    # What had come before a kill is not sent again, but for the upload that was cut.
    assert hub.bytes_in == sum(hub.uploaded.values())
    assert not [path for path in run_dir.parent.iterdir() if path.name.startswith(".")]


def test_what_was_pushed_loads_streams_and_answers_sql(
    small: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    push_run(small, client(hub), shard_bytes=100_000)
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        env=environment(hub, tmp_path / "home"),
        capture_output=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert (told["rows"], told["streamed"], told["looks"]) == (28, 28, 14)
    assert told["size"] == told["stream_size"] == [96, 72]
    assert told["first"] == "photo-0000.jpg#0"
    assert told["sql"] == [[224, 14], [672, 14]]
    assert told["wrong"] == []


def test_a_dry_run_tells_how_other_shards_take_the_place_of_those_before(
    small: Path, hub: LoopbackHub
) -> None:
    told = push_run(small, client(hub), dry_run=True)
    assert (told.created, told.commits, told.sent_bytes) == (True, 0, 0)
    assert not hub.repositories and set(hub.seen) == {"info"}
    push_run(small, client(hub), shard_bytes=90_000)
    files, requests = hub.files("me/data"), hub.seen.copy()
    shards = [path for path in files if path.startswith("data/trajectories/")]
    assert len(shards) > 1
    told = push_run(small, client(hub), dry_run=True)
    states = {path: state for path, (state, _) in told.files.items()}
    assert states["data/trajectories/train-00000-of-00001.parquet"] == "new"
    assert {states[path] for path in shards} == {"stale"}
    assert states["data/steps/train-00000-of-00001.parquet"] == "same"
    assert states[FILE] == "changed"
    assert hub.files("me/data") == files
    assert not {"preupload", "put", "commit"} & set(hub.seen - requests)
    assert push_run(small, client(hub)).files == told.files
    assert not set(shards) & set(hub.files("me/data"))


def test_a_dataset_of_others_and_a_public_one_are_left_alone(small: Path, hub: LoopbackHub) -> None:
    api = client(hub)
    api.create_repo("me/data", repo_type="dataset")
    with pytest.raises(ConfigError, match="there already, and public"):
        push_run(small, api, private=True)
    api.upload_file(
        path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo=FILE, repo_id="me/data",
        repo_type="dataset", run_as_future=False,
    )  # fmt: skip
    before = hub.files("me/data")
    with pytest.raises(ConfigError, match=r"not cofpipe's"):
        push_run(small, api)
    assert hub.files("me/data") == before
    assert push_run(small, api, repo_id="me/other", private=True).created
    assert hub.repositories["me/other"].private
    with pytest.raises(ConfigError, match="names no repository"):
        push_run(small, api, repo_id="just-a-name")


@pytest.mark.parametrize("place", ["put", "commit"])
def test_no_error_tells_the_token(place: str, small: Path, hub: LoopbackHub) -> None:
    def refuse(request: web.Request) -> web.Response | None:
        if request.match_info.handler.__name__.strip("_") != place:
            return None
        said = {"error": f"Forbidden for {TOKEN}, not hf_x: {request.headers.get('Authorization')}"}
        return web.json_response(said, status=403, headers={"X-Error-Message": said["error"]})

    hub.refuse = refuse
    with pytest.raises(CofpipeError) as failed:
        push_run(small, client(hub))
    error = failed.value
    assert "403" in error.message and "hf_" not in str(error)
    assert error.__suppress_context__ and error.__cause__ is None


def refused(publication: Publication, licence: str | None = "mit", **allowed: Any) -> list[str]:
    return [error.message for error in refusals(publication, licence, **allowed)]


def test_it_is_refused_unless_somebody_chose_looked_and_may(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "few", 8, 2)
    with pytest.raises(ConfigError, match="Nobody has looked"):
        push_run(run, HfApi(endpoint="http://127.0.0.1:9", token=TOKEN))
    looked(run)
    publication = gathered(run, tmp_path)
    assert refused(publication) == []
    assert "No licence" in refused(publication, None)[0]
    looked(run, "photo-0001.jpg")
    assert "photo-0001.jpg" in refused(publication)[0]
    assert "photo-0001.jpg" in refused(publication, allow=["photo-0002.jpg"])[0]
    assert refused(publication, allow=["photo-0001.jpg"]) == []


def test_a_look_at_other_data_does_not_count(tmp_path: Path) -> None:
    one, other = (make_run(tmp_path / "runs", name, n, 1) for name, n in (("a", 8), ("b", 16)))
    looked(one)
    (other / "decontamination.json").write_bytes((one / "decontamination.json").read_bytes())
    publication = gathered(other, tmp_path)
    assert "Nobody has looked" in refused(publication)[0] and publication.overlaps is None


def test_pictures_that_may_not_be_passed_on_are_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "closed", 8, 1, source="sa1b:sa_000000.tar")
    looked(run)
    publication = gathered(run, tmp_path)
    assert "sa1b:sa_000000.tar" in refused(publication)[0]
    assert refused(publication, allow_sources=["sa1b:sa_000000.tar"]) == []
