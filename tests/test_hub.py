"""The hub: push, fetch and pull against a stand-in server of its HTTP interface; what is not trusted is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from test_batch import write_inputs
from test_cli import crispdepth, refused

from crispdepth import hub
from crispdepth.models.catalog import load
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.types import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn(BaseHTTPRequestHandler):
    """The hub's paths that huggingface_hub uses for files: create, preupload, LFS, commit, resolve."""

    files: ClassVar[dict[str, bytes]] = {}  # repository/path -> content
    large: ClassVar[dict[str, bytes]] = {}  # LFS objects by their sha256
    asked: ClassVar[list[str]] = []
    claims: ClassVar[int | None] = None  # a size that the headers claim
    gated: ClassVar[bool] = False

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content_Length": str(len(body)), "X_Repo_Commit": COMMIT, **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        known = [key for key in self.files if key.startswith(repo + "/")]
        if self.gated:
            self._answer(403, X_Error_Code="GatedRepo")
        elif not known:
            self._answer(404, X_Error_Code="RepoNotFound")
        elif revision not in ("main", "v1"):
            self._answer(404, X_Error_Code="RevisionNotFound")
        elif f"{repo}/{file}" not in self.files:
            self._answer(404, X_Error_Code="EntryNotFound")
        else:
            body = self.files[f"{repo}/{file}"]
            size = str(self.claims or len(body))
            digest = hashlib.sha256(body).hexdigest()
            self._answer(200, body, ETag=f'"{digest}"', X_Repo_Commit=digest[:40], Content_Length=size)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.large[self.path.rsplit("/", 1)[1]] = body
        self._answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        here = f"http://{self.headers['Host']}"
        if not self.headers.get("Authorization"):
            self._answer(401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self._json({"url": f"{here}/{asked.get('organization') or 'someone'}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            mode = {True: "lfs", False: "regular"}
            paths = [file["path"] for file in json.loads(body)["files"]]
            rows = [{"path": p, "uploadMode": mode[p.endswith(".safetensors")], "shouldIgnore": False} for p in paths]
            self._json({"files": rows})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            rows = [{**o, "actions": {"upload": {"href": f"{here}/lfs/{o['oid']}"}}} for o in objects]
            self._json({"objects": rows, "transfer": "basic"})
        elif "/commit/" in self.path:
            repo = self.path.removeprefix("/api/models").partition("/commit/")[0]
            for line in body.decode().splitlines():
                part = json.loads(line)
                value = part["value"]
                if part["key"] == "file":
                    self.files[f"{repo}/{value['path']}"] = base64.b64decode(value["content"])
                if part["key"] == "lfsFile":
                    self.files[f"{repo}/{value['path']}"] = self.large[value["oid"]]
            self._json({"commitUrl": f"{here}{repo}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        else:
            self._answer(404)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[StandIn]]:
    """A hub of its own for one test, with a cache and a login of its own."""

    class Fresh(StandIn):
        files, large, asked = {}, {}, []

    running = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("HF_TOKEN", "of-the-stand-in")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks LFS
    yield Fresh
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small network of ours, with its card."""
    torch.manual_seed(0)
    Crisp(TINY_CONFIG).save(tmp_path / "mine.safetensors")
    (tmp_path / "mine.md").write_text("# mine\nMade-up scenes; CC0.\n", encoding="utf-8")
    return tmp_path / "mine.safetensors"


@pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")  # huggingface_hub and its HTTP library
def test_pushed_weights_are_predicted_with_pulled_and_kept_for_days_without_network(
    server: type[StandIn], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = crispdepth("hub", "push", weights, "someone/depth")
    assert pushed.returncode == 0, pushed.stderr
    assert "hf:someone/depth" in pushed.stdout
    assert server.files["/someone/depth/model.safetensors"] == weights.read_bytes()
    card = server.files["/someone/depth/README.md"].decode()
    assert card.startswith("---\nlibrary_name: crispdepth")
    assert card.endswith("# mine\nMade-up scenes; CC0.\n")
    low, rgb = write_inputs(tmp_path)
    words = ["predict", "--low", low, "--unit", "mm", "--rgb", rgb]
    own = crispdepth(*words, "--model", weights, "-o", tmp_path / "own.exr")
    assert own.returncode == 0, own.stderr
    for name, out in (("hf:someone/depth", "hub.exr"), ("hf:someone/depth@v1", "v1.exr")):
        done = crispdepth(*words, "--model", name, "-o", tmp_path / out)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / out).read_bytes() == (tmp_path / "own.exr").read_bytes()
    pulled = crispdepth("hub", "pull", "someone/depth", "-o", tmp_path / "pulled.safetensors")
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "pulled.safetensors").read_bytes() == weights.read_bytes()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    assert isinstance(load("hf:someone/depth"), Crisp)
    refused(crispdepth("hub", "pull", "someone/else", "-o", tmp_path / "x.safetensors"), "cannot be reached.*network")


def test_without_a_login_or_a_card_or_with_other_files_nothing_is_pushed(
    server: type[StandIn], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.safetensors").write_bytes(weights.read_bytes())
    refused(crispdepth("hub", "push", tmp_path / "other.safetensors", "someone/depth"), "--card FILE")
    refused(crispdepth("hub", "push", tmp_path / "mine.md", "someone/depth"), "nothing else is uploaded")
    save_file({"x": torch.zeros(1)}, tmp_path / "none.safetensors")
    refused(crispdepth("hub", "push", tmp_path / "none.safetensors", "someone/depth"), "which model it holds")
    refused(crispdepth("hub", "push", weights, "someone/depth@v1"), "write someone/depth")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    refused(crispdepth("hub", "push", weights, "someone/depth"), "hf auth login")
    assert not server.files


def test_what_the_hub_has_not_is_said_with_its_cure(server: type[StandIn]) -> None:
    server.files["/someone/depth/card.md"] = b"x"
    for name, cure in (
        ("hf:no/where", "check the name"),
        ("hf:someone/depth", "name the file"),
        ("hf:someone/depth@v9", "what follows the @"),
        ("hf:someone/depth/model.bin", "never fetched"),
        ("hf:someone/../depth/a.safetensors", "no name on the hub"),
        ("hf:depth", "no name on the hub"),
    ):
        with pytest.raises(InputError, match=cure):
            load(name)
    server.gated = True
    with pytest.raises(InputError, match="ask for access"):
        load("hf:someone/depth")


def test_a_file_too_large_is_not_fetched(server: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/someone/depth/model.safetensors"] = b"x"
    server.claims = hub.MAX_BYTES + 1
    with pytest.raises(InputError, match="at most are fetched"):
        load("hf:someone/depth")
    assert [line.split()[0] for line in server.asked] == ["HEAD"]


def test_a_header_that_promises_too_much_is_refused_before_anything_is_made(
    server: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def served(metadata: dict[str, str], length: int | None = None) -> None:
        header = json.dumps({"__metadata__": metadata, "a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}})
        content = struct.pack("<Q", length or len(header)) + header.encode() + b"\0\0"
        server.files["/someone/depth/model.safetensors"] = content

    made: list[torch.nn.Conv2d] = []
    real = torch.nn.Conv2d.reset_parameters

    def counted(layer: torch.nn.Conv2d) -> None:
        made.append(layer)
        real(layer)

    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", counted)
    for config, cure in (
        ({"widths": [10**6] * 4}, "no network of ours needs"),
        ({"middle": 10**9}, "no network of ours needs"),
        ({"context": 1e400}, "no network of ours needs"),
        ({"widths": [4096] * 4}, "differ from its config"),
        ({"rounds": "x" * 10**5}, "too long"),
        ({"depth": 3}, "holds no weights"),
    ):
        served({"model": "crisp", "config": json.dumps(config)})
        with pytest.raises(InputError, match=cure):
            load("hf:someone/depth")
    assert made
    assert all(layer.weight.is_meta for layer in made)
    served({"model": "crisp", "config": "{}"}, length=2**40)
    with pytest.raises(InputError, match="header's length is wrong"):
        load("hf:someone/depth")
    served({"model": "pickle", "config": "{}"})
    with pytest.raises(InputError, match="which model it holds"):
        load("hf:someone/depth")
