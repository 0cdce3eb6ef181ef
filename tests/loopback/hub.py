"""A server that speaks enough of the Hugging Face Hub to be pushed to and loaded from.

    with LoopbackHub(folder) as hub:
        ...  # a client with HF_ENDPOINT=hub.url
    assert hub.files("me/data") == {"README.md": "…", …}

Datasets only, one branch. Contents of large files lie below `folder` by their SHA-256, or are only
counted where `keep` is off. `watch` is told of every step, in the server's thread and before the
client gets its answer, so a test can end the client just there. It knows nothing of what is pushed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

Watch = Callable[[str], bool]
"""Is told `half` (of an upload), `put`, `commit` (before it counts) and `committed`; whether a
commit comes to nothing."""
Refuse = Callable[[web.Request], web.Response | None]
"""An answer instead of the server's own, or None."""

CHUNK = 1 << 20
LARGE = (".parquet", ".jpg", ".png")
"""Endings of what goes the way of large files."""


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    size: int
    oid: str
    """Git's digest of the file, or of the pointer to it."""
    sha256: str | None = None
    """Of a large file."""
    content: bytes = b""
    """Of a small one."""


@dataclass(frozen=True)
class Commit:
    """A state of the repository."""

    oid: str
    summary: str
    files: Mapping[str, Blob]


@dataclass
class Repository:
    """A dataset."""

    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.head
        return next((c for c in self.commits if c.oid == revision), None)


class LoopbackHub:
    """The server: a context manager; `repositories`, `seen` and `uploaded` stay readable."""

    def __init__(
        self,
        folder: Path,
        *,
        keep: bool = True,
        page: int = 1000,
        watch: Watch | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        """`page` is how many entries of a tree are told at a time."""
        self.repositories: dict[str, Repository] = {}
        self.seen: Counter[str] = Counter()
        """Requests by what was asked for: `create`, `tree`, `put`, `commit`, …"""
        self.tokens: set[str] = set()
        """What came as `Authorization`."""
        self.uploaded: dict[str, int] = {}
        """Sizes of the large files that came, by SHA-256."""
        self.bytes_in = 0
        self.watch: Watch = watch or (lambda event: False)
        self.refuse: Refuse = refuse or (lambda request: None)
        self.port = 0
        self._folder, self._keep, self._page = folder, keep, page
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback-hub", daemon=True)
        self._up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def files(self, repo_id: str) -> dict[str, str]:
        """Digest of every file of a dataset, SHA-256 of the large ones."""
        head = self.repositories[repo_id].head
        return {path: blob.sha256 or blob.oid for path, blob in sorted(head.files.items())}

    def content(self, repo_id: str, path: str) -> bytes:
        """A file of a dataset."""
        return self._content(self.repositories[repo_id].head.files[path])

    def __enter__(self) -> LoopbackHub:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._app(), shutdown_timeout=0.05)
        self._loop.run_until_complete(self._listen(runner))
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._up.set()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._around])
        get, post = app.router.add_get, app.router.add_post
        post("/api/repos/create", self._create)
        post("/api/validate-yaml", self._validate)
        api, rest = "/api/datasets/{owner}/{name}", "{path:.*}"
        post(api + "/preupload/{revision}", self._preupload)
        post(api + "/commit/{revision}", self._commit)
        post(api + "/paths-info/{revision}", self._paths_info)
        get(api + "/tree/{revision}", self._tree)
        get(api + "/tree/{revision}/" + rest, self._tree)
        get(api + "/revision/{revision}", self._info)
        get(api, self._info)
        post("/datasets/{owner}/{name}.git/info/lfs/objects/batch", self._batch)
        app.router.add_put("/store/{sha256}", self._put)
        post("/store/verify", self._verify)
        get("/datasets/{owner}/{name}/resolve/{revision}/" + rest, self._resolve)
        return app

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.seen[request.match_info.handler.__name__.strip("_")] += 1
        self.tokens.add(request.headers.get("Authorization", ""))
        return self.refuse(request) or await handler(request)

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        repo_id = f"{asked['organization']}/{asked['name']}"
        told = {"url": f"{self.url}/datasets/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.repositories:
            return web.json_response({"error": "exists", **told}, status=409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        attributes = _small(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n")
        first = _committed(None, "initial commit", {".gitattributes": attributes})
        self.repositories[repo_id] = Repository(private, [first])
        return web.json_response(told)

    async def _validate(self, request: web.Request) -> web.Response:
        content = (await request.json())["content"]
        ok = content.startswith("---\n") and "\n---\n" in content
        errors = [] if ok else [{"message": "no front matter"}]
        return web.json_response({"errors": errors, "warnings": []}, status=200 if ok else 400)

    async def _preupload(self, request: web.Request) -> web.Response:
        repository = self._named(request)
        if repository is None:
            return _missing("RepoNotFound")
        told = []
        for file in (await request.json())["files"]:
            there = repository.head.files.get(file["path"])
            large = file["path"].endswith(LARGE)
            oid = None if there is None else there.sha256 or there.oid
            mode = "lfs" if large else "regular"
            told.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        return web.json_response({"files": told})

    async def _batch(self, request: web.Request) -> web.Response:
        objects = []
        for one in (await request.json())["objects"]:
            told = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.uploaded:
                upload = {"href": f"{self.url}/store/{one['oid']}"}
                verify = {"href": f"{self.url}/store/verify"}
                told["actions"] = {"upload": upload, "verify": verify}
            objects.append(told)
        return web.json_response({"transfer": "basic", "objects": objects})

    async def _put(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        hidden = self._folder / f".{sha256}.{id(request):x}"
        try:
            size, found = await self._received(request, hidden)
        except BaseException:  # the client went away
            hidden.unlink()
            raise
        if found != sha256 or size != request.content_length:
            hidden.unlink()
            return web.Response(status=400)
        hidden.rename(self._folder / sha256)
        self.uploaded[sha256] = size
        self.bytes_in += size
        self.watch("put")
        return web.Response()

    async def _received(self, request: web.Request, file: Path) -> tuple[int, str]:
        """Size and SHA-256 of what came."""
        digest, size, told = hashlib.sha256(), 0, False
        with file.open("wb") as out:
            async for chunk in request.content.iter_chunked(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if self._keep:
                    out.write(chunk)
                if not told and size * 2 >= (request.content_length or 0):
                    self.watch("half")
                    told = True
        return size, digest.hexdigest()

    async def _verify(self, request: web.Request) -> web.Response:
        asked = await request.json()
        ok = self.uploaded.get(asked["oid"]) == asked["size"]
        return web.json_response({}, status=200 if ok else 404)

    async def _commit(self, request: web.Request) -> web.Response:
        repository = self._named(request)
        if repository is None:
            return _missing("RepoNotFound")
        lines = [json.loads(line) for line in (await request.read()).splitlines()]
        files = dict(repository.head.files)
        for line in lines[1:]:
            path, value = line["value"]["path"], line["value"]
            if line["key"] == "file":
                files[path] = _small(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.uploaded:
                    return web.json_response({"error": "no such object"}, status=400)
                files[path] = _large(value["oid"], value["size"])
            elif line["key"] == "deletedFile":
                del files[path]
        if self.watch("commit"):
            return web.Response(status=503)
        commit = _committed(repository.head, lines[0]["value"]["summary"], files)
        repository.commits.append(commit)
        self.watch("committed")
        url = f"{self.url}/datasets/{self._name(request)}/commit/{commit.oid}"
        return web.json_response({"success": True, "commitOid": commit.oid, "commitUrl": url})

    async def _info(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if isinstance(found, web.Response):
            return found
        repository = self.repositories[self._name(request)]
        told = {"id": self._name(request), "sha": found.oid, "private": repository.private}
        siblings = [{"rfilename": path} for path in sorted(found.files)]
        return web.json_response({**told, "siblings": siblings, "tags": [], "gated": False})

    async def _tree(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if isinstance(found, web.Response):
            return found
        folder = request.match_info.get("path", "").strip("/")
        deep = request.query.get("recursive", "").lower() == "true"
        told = _entries(found.files, folder, deep)
        if folder and not told:
            return _missing("EntryNotFound")
        start = int(request.query.get("cursor", 0))
        headers = {}
        if start + self._page < len(told):
            after = request.url.update_query(cursor=str(start + self._page))
            headers["Link"] = f'<{after}>; rel="next"'
        return web.json_response(told[start : start + self._page], headers=headers)

    async def _paths_info(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if isinstance(found, web.Response):
            return found
        form = await request.post() if "form" in request.content_type else await request.json()
        paths = form.getall("paths") if hasattr(form, "getall") else form["paths"]
        every = {entry["path"]: entry for entry in _entries(found.files, "", True)}
        return web.json_response([every[path] for path in paths if path in every])

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        found = self._found(request)
        if isinstance(found, web.Response):
            return found
        blob = found.files.get(request.match_info["path"])
        if blob is None:
            return _missing("EntryNotFound")
        content, status = self._content(blob), 200
        headers = {"ETag": f'"{blob.sha256 or blob.oid}"', "X-Repo-Commit": found.oid}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            start, stop = int(wanted[1]), min(int(wanted[2] or blob.size - 1), blob.size - 1)
            headers["Content-Range"] = f"bytes {start}-{stop}/{blob.size}"
            content, status = content[start : stop + 1], 206
        return web.Response(body=content, status=status, headers=headers)

    def _content(self, blob: Blob) -> bytes:
        return blob.content if blob.sha256 is None else (self._folder / blob.sha256).read_bytes()

    @staticmethod
    def _name(request: web.Request) -> str:
        return f"{request.match_info['owner']}/{request.match_info['name']}"

    def _named(self, request: web.Request) -> Repository | None:
        return self.repositories.get(self._name(request))

    def _found(self, request: web.Request) -> Commit | web.Response:
        repository = self._named(request)
        if repository is None:
            return _missing("RepoNotFound")
        commit = repository.at(request.match_info.get("revision", "main"))
        return commit or _missing("RevisionNotFound")


def _small(content: bytes) -> Blob:
    header = f"blob {len(content)}\0".encode()
    return Blob(len(content), hashlib.sha1(header + content).hexdigest(), None, content)


def _large(sha256: str, size: int) -> Blob:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Blob(size, _small(pointer.encode()).oid, sha256)


def _committed(before: Commit | None, summary: str, files: Mapping[str, Blob]) -> Commit:
    told = [before.oid if before else "", summary, *(f"{p}:{files[p].oid}" for p in sorted(files))]
    return Commit(hashlib.sha1("\n".join(told).encode()).hexdigest(), summary, files)


def _entries(files: Mapping[str, Blob], folder: str, deep: bool) -> list[dict[str, Any]]:
    """What a tree tells of a folder: its files, and its folders."""
    told: dict[str, dict[str, Any]] = {}
    start = f"{folder}/" if folder else ""
    for path, blob in sorted(files.items()):
        if not path.startswith(start):
            continue
        parts = path.removeprefix(start).split("/")
        for depth in range(1, len(parts)) if deep else range(1, min(2, len(parts))):
            name = start + "/".join(parts[:depth])
            oid = hashlib.sha1(name.encode()).hexdigest()
            told[name] = {"type": "directory", "oid": oid, "size": 0, "path": name}
        if deep or len(parts) == 1:
            told[path] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
            if blob.sha256:
                told[path]["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
    return list(told.values())


def _missing(code: str) -> web.Response:
    return web.json_response({"error": code}, status=404, headers={"X-Error-Code": code})
