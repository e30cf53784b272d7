"""`crispdepth view`: serves the page to this machine, and clears what was handed in when it ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from crispdepth.desk import Desk
from crispdepth.page import page
from crispdepth.roles import told_apart
from crispdepth.types import InputError

LOOPBACK = ("127.0.0.1", "localhost")
# The browser itself forbids the page to ask anything of another machine.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; "
    "connect-src 'self' blob: data: ws:; frame-ancestors 'none'"
)
STYLE = """
.legend {display: flex; gap: .3em 1.5em; flex-wrap: wrap}
.legend i {display: inline-block; width: 1em; height: .8em; margin: 0 .3em}
#lines textarea {font-family: ui-monospace, monospace}
#error {border-left: .3em solid #dc2626; padding: .4em .8em; white-space: pre-wrap}
"""


# ------------------------------------------------------------------------------- from start to Ctrl-C


def view(
    files: Iterable[Path], host: str, port: int, own: Iterable[str], browser: bool, say: Callable[[str], Any]
) -> None:
    """Serve the page until Ctrl-C (or SIGTERM), with ``own`` models beside the catalog's.

    Raises InputError for files and models that cannot be read and an address that is taken.
    """
    with serving(files, host, port, own, browser) as url, suppress(KeyboardInterrupt):
        for name in ("SIGTERM", "SIGHUP"):  # the files handed in are removed then, too
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.default_int_handler)
        say(f"the viewer is at {url} (Ctrl-C ends it)")
        if host not in LOOPBACK:
            say("from elsewhere: this machine's name or address in place of 127.0.0.1; everyone who reaches it can use")
            say("the page: there is no password")
        try:
            threading.Event().wait()
        finally:
            say("ending, after what is at work")


@contextmanager
def serving(
    files: Iterable[Path] = (), host: str = "127.0.0.1", port: int = 0, own: Iterable[str] = (), browser: bool = False
) -> Iterator[str]:
    """The address of a page that answers in the background until the block ends. Raises InputError as ``view``."""
    port = _free(host, port)
    given = told_apart(files)
    with closing(Desk(own)) as desk, _cache(desk.folder):
        blocks = page(desk, given, host in LOOPBACK)
        blocks.queue(default_concurrency_limit=1)
        hosts = [host, "127.0.0.1", "localhost"] if host in LOOPBACK else ["*"]
        blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            max_file_size="1gb",
            css=STYLE,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            app_kwargs={
                "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(Confined)],
            },
        )
        try:
            yield f"http://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{port}/"
        finally:
            desk.stop()
            blocks.close(verbose=False)


def _free(host: str, port: int) -> int:
    """``port``, or one that is free for 0. Raises InputError for one that is taken."""
    try:
        with socket.create_server((host, port)) as listening:
            return listening.getsockname()[1]
    except (OSError, OverflowError) as error:
        cure = "choose another --port (0: a free one) or --host"
        raise InputError(f"cannot listen at {host}:{port} ({error}): {cure}") from error


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Gradio keeps what is handed in inside ``folder``, and asks nothing of the makers' machines."""
    ours = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Confined:
    """Adds POLICY to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)
