"""Test downloads from the hub with its real client and a server on this machine that behaves badly."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fsaf.checkpoints.hub import CONFIG, WEIGHTS
from web import serving

pytestmark = pytest.mark.slow

COMMIT = "a" * 40
TIMEOUT = 1
"""Seconds after which the client gives up waiting for a byte."""

SCRIPT = """
import json, sys
from pathlib import Path
from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.errors import UserError
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = list(read_checkpoint(Path(name.removesuffix("-again"))).classes.names)
    except UserError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@dataclass
class Hub:
    """Repositories by name: good, breaks, slow, short, wrong; any other is missing.

    files: those of every repository. asked: name and file of each request for content.
    """

    files: dict[str, bytes]
    asked: list[tuple[str, str]] = field(default_factory=list)


def answer(hub: Hub, request: BaseHTTPRequestHandler) -> None:
    """Answer as the hub does: facts about a repository, or a file with its commit and its sum."""
    path = request.path.partition("?")[0]
    name = path.removeprefix("/api/models/").strip("/").split("/")[1]
    if name not in ("good", "breaks", "slow", "short", "wrong"):
        request.send_response(404)
        request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    if path.startswith("/api/"):
        about: object = {"id": f"me/{name}", "sha": COMMIT}
        if "/tree/" in path:
            sums = {file: hashlib.sha256(content).hexdigest() for file, content in hub.files.items()}
            about = [
                {"type": "file", "path": file, "size": len(content), "oid": sums[file][:40]}
                | {"lfs": {"oid": sums[file], "size": len(content), "pointerSize": 100}}
                for file, content in hub.files.items()
            ]
        body = json.dumps(about).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return
    file = path.rpartition("/")[2]
    content, asked = hub.files[file], request.headers.get("Range")
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    request.send_response(206 if asked else 200)
    request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
    request.send_header("X-Repo-Commit", COMMIT)
    request.send_header("Content-Length", str(len(content) - start))
    if asked:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.end_headers()
    if request.command == "HEAD":
        return
    first = (name, file) not in hub.asked
    hub.asked.append((name, file))
    body = content[start:]
    if file == WEIGHTS and name == "wrong" and first:
        body = bytes(len(body))
    if file == WEIGHTS and name == "short":
        body = body[: len(body) // 2]
    if file == WEIGHTS and name in ("breaks", "slow") and first:
        request.wfile.write(body[:1000])
        time.sleep(3 * TIMEOUT if name == "slow" else 0)
        return
    request.wfile.write(body)


@pytest.fixture
def hub(published: Path) -> Iterator[tuple[Hub, str]]:
    """The server and its address."""
    hub = Hub({name: (published / name).read_bytes() for name in (WEIGHTS, CONFIG)})

    with serving(lambda request: answer(hub, request)) as address:
        yield hub, address


def test_repositories_of_the_hub(hub: tuple[Hub, str], tmp_path: Path) -> None:
    server, address = hub
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DOWNLOAD_TIMEOUT": str(TIMEOUT),
        "HF_HUB_DISABLE_XET": "1",
    }
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "http_proxy", "https_proxy", "all_proxy"):
        environment.pop(name, None)
        environment.pop(name.upper(), None)
    names = ["good", "good-again", "breaks", "slow", "short", "wrong", "wrong-again", "gone"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(f"hf:me/{name}" for name in names)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = {name.removeprefix("hf:me/"): value for name, value in json.loads(done.stdout).items()}
    for name in ("good", "good-again", "breaks", "slow", "wrong-again"):
        assert found[name] == ["green", "red", "blue"], (name, found[name], done.stderr)
    weights = [name for name, file in server.asked if file == WEIGHTS]
    assert {name: weights.count(name) for name in weights if name != "short"} == {
        "good": 1,
        "breaks": 2,
        "slow": 2,
        "wrong": 2,
    }
    assert "hf:me/short: cannot be downloaded from the hub" in found["short"]
    assert "hf:me/wrong: model.safetensors arrived damaged" in found["wrong"]
    assert "hf:me/gone: cannot be downloaded from the hub" in found["gone"]
    assert all("\n" not in found[name] for name in ("short", "wrong", "gone"))
