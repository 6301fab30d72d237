"""A model hub in this process: the routes that huggingface_hub uses to send and fetch a model."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_a_token_that_may_write"


@dataclass
class Repository:
    """One repository.

    Args:
        private: Whether it needs the token.
        branches: Files by name, by branch.
        commits: Files by name, by commit.
    """

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit and the files of a branch or commit."""
        if revision in self.commits:
            return revision, self.commits[revision]
        if revision not in self.branches:
            return None
        files = self.branches[revision]
        commit = digest(*(part for name in sorted(files) for part in (name.encode(), files[name])))
        self.commits[commit] = dict(files)
        return commit, files


@dataclass
class FakeHub:
    """The hub: what it holds, and what was asked of it.

    Args:
        address: Where it listens.
    """

    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def files(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        """Return a branch's files by name."""
        return self.repositories[repository].branches[branch]


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run a hub on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = FakeHub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def digest(*parts: bytes) -> str:
    """Return 40 hexadecimal digits."""
    return hashlib.sha1(b"\0".join(parts)).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answer one request."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> FakeHub:
        """The hub."""
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Find the route."""
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = path.split("/")
        if words[0] == "blobs":
            self.hub.blobs[words[1]] = body
            return self.reply({})
        if path == "api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if path == "api/repos/create":
            return self.create(json.loads(body), may_write)
        if words[0] == "api":
            return self.api(words[2:], body, may_write)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        return self.resolve(words, may_write)

    def create(self, wanted: dict[str, Any], may_write: bool) -> None:
        """Make a repository."""
        name = f"{wanted['organization']}/{wanted['name']}"
        if not may_write:
            return self.refuse(401, "Invalid username or password.")
        if name in self.hub.repositories:
            there = {"error": "You already created this model repo", "url": self.url(name)}
            return self.reply(there, 409)
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.repositories[name] = Repository(bool(private))
        return self.reply({"url": self.url(name), "id": name, "name": name})

    def api(self, words: list[str], body: bytes, may_write: bool) -> None:
        """Answer what is asked about one repository."""
        name, action = "/".join(words[:2]), words[2] if len(words) > 2 else "revision"
        rest = "/".join(words[3:]) or "main"
        known = self.hub.repositories.get(name)
        if known is None or (known.private and not may_write):
            return self.refuse(404, "Repository not found", "RepoNotFound")
        if action == "branch":
            if rest in known.branches:
                return self.refuse(409, "Reference already exists")
            known.branches[rest] = dict(known.branches["main"])
            return self.reply({})
        if action == "preupload":
            return self.preupload(json.loads(body))
        if action == "commit":
            return self.commit(name, known.branches[rest], body)
        found = known.at(rest)
        if found is None:
            return self.refuse(404, f"Invalid rev id: {rest}", "RevisionNotFound")
        commit, files = found
        if action == "tree":
            return self.reply([self.entry(path, files[path]) for path in sorted(files)])
        siblings = [{"rfilename": path} for path in sorted(files)]
        facts = {"id": name, "sha": commit, "private": known.private, "siblings": siblings}
        return self.reply(facts | {"tags": [], "downloads": 0, "likes": 0})

    def preupload(self, wanted: dict[str, Any]) -> None:
        """Say which files go where: weights as large files."""
        modes = {True: "lfs", False: "regular"}
        files = [
            {
                "path": one["path"],
                "uploadMode": modes[one["path"].endswith(".safetensors")],
                "shouldIgnore": False,
            }
            for one in wanted["files"]
        ]
        self.reply({"files": files})

    def batch(self, wanted: dict[str, Any]) -> None:
        """Say where large files go."""
        objects = [
            {
                **one,
                "actions": {"upload": {"href": f"{self.hub.address}/blobs/{one['oid']}"}},
            }
            for one in wanted["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects})

    def commit(self, name: str, files: dict[str, bytes], body: bytes) -> None:
        """Take all files of a commit."""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.hub.blobs[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
        found = self.hub.repositories[name].at("main")
        commit = found[0] if found else ""
        self.reply(
            {
                "commitUrl": f"{self.hub.address}/{name}/commit/{commit}",
                "commitOid": commit,
                "success": True,
            }
        )

    def validate(self, content: str) -> None:
        """Check the head of a card."""
        head = yaml.safe_load(content.split("---\n")[1]) if content.startswith("---\n") else {}
        right = isinstance(head.get("tags", []), list)
        errors = [] if right else [{"message": '"tags" must be an array'}]
        self.reply({"errors": errors, "warnings": []}, 400 if errors else 200)

    def resolve(self, words: list[str], may_write: bool) -> None:
        """Give one file."""
        known = self.hub.repositories.get("/".join(words[:2]))
        found = known.at(words[3]) if known and (may_write or not known.private) else None
        path = "/".join(words[4:])
        if found is None or path not in found[1]:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        content = found[1][path]
        self.send_response(200)
        self.send_header("ETag", f'"{digest(content)}"')
        self.send_header("X-Repo-Commit", found[0])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        return None

    def url(self, name: str) -> str:
        """Return the address of a repository."""
        return f"{self.hub.address}/{name}"

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        """Return what the tree says of a file."""
        return {"type": "file", "path": path, "size": len(content), "oid": digest(content)}

    def refuse(self, status: int, message: str, code: str = "") -> None:
        """Answer with an error."""
        self.reply({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON."""
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
