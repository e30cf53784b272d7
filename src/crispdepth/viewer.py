"""The page of `crispdepth view`: a small web server for this machine alone, of the standard library's parts."""

from __future__ import annotations

import json
import re
import signal
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from crispdepth import picture
from crispdepth.desk import EXAMPLES, Desk, defaults
from crispdepth.findings import DOWNLOADS, Run, download, measure, one_line
from crispdepth.formats.png_tiff import png_bytes
from crispdepth.models.catalog import CATALOG
from crispdepth.roles import told_apart
from crispdepth.types import InputError
from crispdepth.units import UNITS

PAGE = Path(__file__).parent / "page"  # html, css and js, all of it
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 2**30  # of one file
MOST_JSON = 2**16
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".png": "image/png"}
# The browser itself forbids the page to ask anything of another machine.
POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"


class Server(ThreadingHTTPServer):
    """One desk behind one address; ``given`` are the files of the command line by role, ``own`` its models."""

    daemon_threads = True

    def __init__(self, host: str, port: int, given: Mapping[str, Path], own: Iterable[str]) -> None:
        self.desk = Desk(own)
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            self.desk.close()
            cure = "choose another --port (0: a free one) or --host"
            raise InputError(f"cannot listen at {host}:{port} ({error}): {cure}") from error
        self.host = host
        self.given = {role: {"token": self.desk.lend(path), "name": path.name} for role, path in given.items()}

    @property
    def url(self) -> str:
        """What to type into a browser on this machine."""
        host = self.host if self.host not in ("0.0.0.0", "") else "127.0.0.1"
        return f"http://{host}:{self.server_address[1]}/"


@contextmanager
def serving(
    files: Iterable[Path] = (), host: str = "127.0.0.1", port: int = 0, own: Iterable[str] = ()
) -> Iterator[Server]:
    """A server that answers in the background until the block ends. Raises InputError as ``view``."""
    server = Server(host, port, told_apart(files), own)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        server.desk.close()


def view(
    files: Iterable[Path], host: str, port: int, own: Iterable[str], browser: bool, say: Callable[[str], Any]
) -> None:
    """Serve the page until Ctrl-C (or SIGTERM), with ``own`` models beside the catalog's.

    Raises InputError for files and models that cannot be read and an address that is taken.
    """
    with serving(files, host, port, own) as server, suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the files handed in are removed then, too
        say(f"the viewer is at {server.url} (Ctrl-C ends it)")
        if host not in LOOPBACK:
            say("everyone who reaches this machine can use it: there is no password")
        if browser:
            webbrowser.open(server.url)
        threading.Event().wait()


class Handler(BaseHTTPRequestHandler):
    """Routes: the page's own files, and under /api/ what ``desk`` does."""

    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is the user's."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.run: Run | None = None
        try:
            self._check_sender(method)
            for wanted, pattern, act in ROUTES:
                match = re.fullmatch(pattern, parts.path)
                if match and wanted == method:
                    act(self, query, *(unquote(group) for group in match.groups()))
                    return
            self._send(404, b"not found", "text/plain")
        except InputError as error:
            self._json({"error": one_line(error, self.server.desk.folder, self.run)}, 400)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _check_sender(self, method: str) -> None:
        """Another web page must not talk to this server: not by a name of its own, not from its own origin."""
        host = self.headers.get("Host", "")
        name = re.sub(r":\d+$", "", host).strip("[]")
        if self.server.host in LOOPBACK and name not in LOOPBACK:
            raise InputError(f"this page answers to {self.server.url} only")
        origin = self.headers.get("Origin")
        if method != "GET" and origin is not None and urlsplit(origin).netloc != host:
            raise InputError("this request came from another page")

    # ------------------------------------------------------------------------------- answers

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        if status != 200:
            self.close_connection = True  # what was sent may not have been read
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **({"Connection": "close"} if self.close_connection else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, data: object, status: int = 200) -> None:
        self._send(status, json.dumps(data).encode(), "application/json")

    def _length(self, most: int) -> int:
        text = self.headers.get("Content-Length", "")
        if not text.isdigit() or int(text) > most:
            raise InputError(f"too large: {most / 2**20:.4g} MB at most")
        return int(text)

    def _asked(self) -> dict[str, Any]:
        try:
            found = json.loads(self.rfile.read(self._length(MOST_JSON)))
        except ValueError as error:
            raise InputError("the request is no JSON") from error
        if not isinstance(found, dict):
            raise InputError("the request is no JSON object")
        return found

    def _run(self, token: str) -> Run:
        self.run = self.server.desk.run(token)
        return self.run

    # ------------------------------------------------------------------------------- routes

    def page(self, query: dict[str, str], name: str = "index.html") -> None:
        """One of the page's own files."""
        path = PAGE / name
        if not path.is_file():
            self._send(404, b"not found", "text/plain")
            return
        self._send(200, path.read_bytes(), KINDS[path.suffix])

    def about(self, query: dict[str, str]) -> None:
        """Models, units, examples, downloads, and the files of the command line."""
        desk = self.server.desk
        self._json(
            {
                "models": [_about_model(name, inputs) for name, inputs in desk.models.items()],
                "own": desk.own,
                "defaults": defaults(),
                "units": [{"name": unit.name, "text": unit.text} for unit in UNITS.values()],
                "out_units": [
                    u.name for u in UNITS.values() if u.integer and u.metres is not None and ":" not in u.name
                ],
                "examples": list(EXAMPLES),
                "downloads": [{"name": n, "field": field, "what": what} for n, (field, what) in DOWNLOADS.items()],
                "given": self.server.given,
            }
        )

    def ramp(self, query: dict[str, str], name: str) -> None:
        """The colour bar: of depth, or of errors."""
        values = np.linspace(0, 1, 256)[None].repeat(2, axis=0)
        paint = picture.colours if name == "depth" else picture.error_colours
        self._send(200, png_bytes(paint(values, values >= 0, picture.Range(0, 1))), "image/png")

    def take_file(self, query: dict[str, str]) -> None:
        """A file handed in."""
        length = self._length(MOST_BYTES)
        name = query.get("name", "file")
        self._json({"token": self.server.desk.keep(name, self.rfile, length), "name": name})

    def take_example(self, query: dict[str, str]) -> None:
        """An example's files, as if handed in."""
        names = self.server.desk.example(str(self._asked().get("name")))
        self._json({role: {"token": token, "name": f"{role} of the example"} for role, token in names.items()})

    def tell_apart(self, query: dict[str, str]) -> None:
        """Which of the files dropped together is what."""
        asked = self._asked()
        self._json(self.server.desk.roles(asked.get("tokens") or [], bool(asked.get("low"))))

    def start(self, query: dict[str, str]) -> None:
        """A run."""
        self._json({"run": self.server.desk.submit(self._asked())})

    def state(self, query: dict[str, str], token: str) -> None:
        """How far a run is; its lines and figures when it is done."""
        run = self._run(token)
        before = self.server.desk.waiting_before(run) if run.state == "waiting" else 0
        told = {"state": run.state, "stage": run.stage, "share": run.share, "before": before, "error": run.error}
        done = {"lines": run.lines, **run.facts} if run.state == "done" else {}
        self._json(told | done)

    def cancel(self, query: dict[str, str], token: str) -> None:
        """Ask a run to end."""
        self._asked()  # what is not read would be taken for the next request
        self.server.desk.cancel(self._run(token))
        self._json({})

    def camera(self, query: dict[str, str], token: str) -> None:
        """Another camera for a run that is done."""
        run = self._run(token)
        self._json(self.server.desk.set_camera(run, self._asked()))

    def image(self, query: dict[str, str], token: str, name: str) -> None:
        """A picture of the result, or its surface (GLB)."""
        data = self._run(token).images.get(name)
        if data is None:
            self._send(404, b"not found", "text/plain")
            return
        self._send(200, data, "model/gltf-binary" if name == "surface" else "image/png")

    def point(self, query: dict[str, str], token: str) -> None:
        """Depth at ``at=column,row;column,row``, and the distance."""
        try:
            pixels = [(int(u), int(v)) for u, v in (pair.split(",") for pair in query.get("at", "").split(";"))]
        except ValueError as error:
            raise InputError("write at=column,row;column,row") from error
        self._json(measure(self._run(token), pixels[:16]))

    def file(self, query: dict[str, str], token: str, name: str) -> None:
        """A file to download."""
        path = download(self._run(token), name, query.get("out_unit") or None)
        kind = KINDS.get(path.suffix, "application/octet-stream")
        self._send(200, path.read_bytes(), kind, Content_Disposition=f'attachment; filename="{path.name}"')


def _about_model(name: str, inputs: tuple[str, ...]) -> dict[str, Any]:
    row = CATALOG.get(name)
    task = "of your own" if row is None else row.task + (", fetched at first use" if row.hub else "")
    return {"name": name, "task": task, "inputs": inputs}


TOKEN = r"/api/runs/([\w-]+)"
ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", r"/", Handler.page),
    ("GET", r"/(\w+\.(?:css|js))", Handler.page),
    ("GET", r"/ramp/(depth|error)\.png", Handler.ramp),
    ("GET", r"/api/about", Handler.about),
    ("PUT", r"/api/files", Handler.take_file),
    ("POST", r"/api/examples", Handler.take_example),
    ("POST", r"/api/roles", Handler.tell_apart),
    ("POST", r"/api/runs", Handler.start),
    ("GET", TOKEN, Handler.state),
    ("POST", TOKEN + r"/cancel", Handler.cancel),
    ("POST", TOKEN + r"/camera", Handler.camera),
    ("GET", TOKEN + r"/images/(\w+)", Handler.image),
    ("GET", TOKEN + r"/point", Handler.point),
    ("GET", TOKEN + r"/files/([\w.]+)", Handler.file),
)
