"""A file is absent or whole, also after a power cut; of two who create it, one wins."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from pipeline.runner import rundir
from pipeline.runner.calls import frames
from pipeline.runner.storage import FsspecStorage, LocalStorage, Storage
from pipeline.shards import Grant, Plan
from tests.runner.conftest import attempt
from tests.runner.forgetful import ForgetfulDisk, PowerCut


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path)
    return FsspecStorage(f"memory://{tmp_path.name}")


def test_what_is_created_can_be_listed_and_read(storage: Storage) -> None:
    with storage.create("a/b/x.bin") as file:
        file.write(b"one")
        assert [f for f in storage.list("a/b") if not f.temporary] == []
    (found,) = storage.list("a/b")
    assert (found.path, found.bytes, found.temporary) == ("a/b/x.bin", 3, False)
    assert found.modified > 1.7e9
    assert storage.read("a/b/x.bin") == b"one"
    assert storage.folders("a") == ["b"]
    assert storage.list("none") == storage.folders("none") == []
    with pytest.raises(FileNotFoundError):
        storage.read("a/b/y.bin")


def test_a_block_that_fails_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(ZeroDivisionError), storage.create("a/x") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert storage.list("a") == []


def test_put_if_absent_never_overwrites(storage: Storage) -> None:
    assert storage.put_if_absent("a/x", b"first")
    assert not storage.put_if_absent("a/x", b"second")
    assert storage.read("a/x") == b"first"
    assert len(storage.list("a")) == 1


def test_removing_twice_is_no_error(storage: Storage) -> None:
    storage.put_if_absent("a/x", b"")
    storage.remove("a/x")
    storage.remove("a/x")
    assert storage.list("a") == []


def test_of_many_who_put_one_wins(tmp_path: Path) -> None:
    for round_ in range(10):
        won: list[int] = []
        start = threading.Barrier(4)
        threads = [
            threading.Thread(target=_put, args=(tmp_path, round_, me, start, won))
            for me in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert LocalStorage(tmp_path).read(f"r/{round_}") == str(won[0]).encode()


def _put(root: Path, round_: int, me: int, start: threading.Barrier, won: list[int]) -> None:
    start.wait()
    if LocalStorage(root).put_if_absent(f"r/{round_}", str(me).encode()):
        won.append(me)


def _create(storage: LocalStorage) -> None:
    with storage.create("data/kind/x") as file:
        file.write(b"whole")


def _put_whole(storage: LocalStorage) -> None:
    storage.put_if_absent("data/kind/x", b"whole")


@pytest.mark.parametrize("write", [_create, _put_whole])
def test_a_file_survives_a_power_cut_whole_or_not_at_all(
    tmp_path: Path, write: Callable[[LocalStorage], None]
) -> None:
    for cut in count():
        disk = ForgetfulDisk(tmp_path / str(cut), cut)
        disk.root.mkdir()
        try:
            write(LocalStorage(disk.root, disk))
        except PowerCut:
            assert disk.survivors().get("data/kind/x") in (None, b"whole")
        else:
            assert disk.survivors()["data/kind/x"] == b"whole"
            break


class NeverSyncsFiles(ForgetfulDisk):
    def sync(self, file: object) -> None:
        file.flush()  # type: ignore[attr-defined]


class NeverSyncsFolders(ForgetfulDisk):
    def sync_folder(self, path: Path) -> None:
        return


@pytest.mark.parametrize("careless", [NeverSyncsFiles, NeverSyncsFolders])
def test_the_forgetful_disk_notices_a_missing_sync(
    tmp_path: Path, careless: type[ForgetfulDisk]
) -> None:
    disk = careless(tmp_path)
    _create(LocalStorage(tmp_path, disk))
    assert disk.survivors().get("data/kind/x") != b"whole"


def test_a_record_that_survives_a_power_cut_names_files_that_did(tmp_path: Path) -> None:
    """The order of a commit: the calls it rests on and every file for good, then the record."""
    whole = 0
    for cut in count(0, 3):
        disk = ForgetfulDisk(tmp_path / str(cut), cut)
        disk.root.mkdir()
        plan = Plan(str(disk.root), "r", "trajectories", entries=4, shards=1)
        grant = Grant(0, 0, 4, "0" * 8, None)
        try:
            attempt(plan, grant, LocalStorage(disk.root, disk))
            done = True
        except PowerCut:
            done = False
        whole += _check_survivors(disk.survivors())
        if done:
            break
    assert done
    assert whole >= 1


def _check_survivors(there: dict[str, bytes]) -> int:
    """How many records survived; each file they name, and each call, is there whole."""
    names = [path for path in there if path.startswith(rundir.RECORDS)]
    kept = {e["key"] for e in frames(there.get("journal/shard-00000.00000000.calls", b""))}
    for record in (record for name in names for record in rundir.decode(there[name])):
        for file in record.files:
            assert hashlib.sha256(there[file.path]).hexdigest() == file.sha256
        assert kept >= {f"e{index}/0" for index in range(record.first_index, record.next_index)}
    return len([name for name in names if not name.endswith(".tmp")])
