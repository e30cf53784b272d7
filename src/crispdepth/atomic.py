"""Open a file, replace one in a single step, work in a folder alone; one line for whatever goes wrong."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias

from crispdepth.types import InputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

PathLike: TypeAlias = str | os.PathLike[str]


def shown(thing: object) -> str:
    """One printable line, whatever a path or a message holds."""
    text = str(thing).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def opened(path: PathLike) -> Iterator[IO[bytes]]:
    """The file, opened to be read; whatever fails inside becomes an InputError that names the path."""
    name = shown(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError("is a folder; give a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError("is no ordinary file; save it to disk first")
        if status.st_size == 0:
            raise InputError("is empty (0 bytes); copy or export it again")
        with open(path, "rb") as file:
            yield file
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{name}: no such file; check the path") from error
    except PermissionError as error:
        raise InputError(f"{name}: not allowed to read it; change its permissions") from error
    except MemoryError as error:
        raise InputError(f"{name}: does not fit into memory; cut it into tiles") from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise InputError(f"{name}: is a link that leads back to itself; remove it, or link to a file") from error
        raise InputError(f"{name}: cannot be read ({shown(error)}); check the path and the disk") from error


@contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` (hidden, same suffix) that takes its place when all went well.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` stays as it was. A full
    disk or a closed folder is an InputError. A symbolic link is followed, so the link stays.

    Several outputs, all or none: open one ``atomic`` for each (``contextlib.ExitStack``), write every file to
    its temporary path (the writers of ``io`` may be used: they nest), and leave the stack once. All
    bytes are on disk before the first name changes, so only a rename itself could still fail.
    """
    target = _real(path)
    if os.path.isdir(target):
        raise InputError(f"{shown(path)}: is a folder; name a file in it")
    stem = os.fsencode(target.stem)[:100].decode("utf-8", "ignore")
    temporary = target.with_name(f".{stem}-{secrets.token_hex(6)}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except InputError as error:
        # a writer inside knew only the hidden name
        raise InputError(str(error).replace(shown(temporary), shown(path))) from error
    except OSError as error:
        if error.filename not in (None, str(temporary), temporary):
            raise
        raise InputError(f"{shown(path)}: cannot be written: {_why(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _real(path: PathLike) -> Path:
    """The path with all links followed."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: is no usable path ({shown(error)}); choose another name") from error


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full; free some space or choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder is read-only; choose another one"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "its folder does not exist; create it first"
    return f"{shown(error.strerror or error)}; choose another name or folder"


def make_folder(path: PathLike) -> None:
    """Make the folder and those above it, where they are missing. Raises InputError."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be made: {_why(error)}") from error


def check_folder(path: PathLike) -> None:
    """Says before any work that nothing could be written into the folder ``path``: raises InputError.

    It may be missing: then the one above it counts in which ``make_folder`` would make it.
    """
    folder = _real(path)
    while not os.path.exists(folder):
        folder = folder.parent
    _check_folder(shown(path), folder)


def _check_folder(name: str, folder: Path) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"{name}: {shown(folder)} is a file; name a folder")
    if not os.path.isdir(folder):
        raise InputError(f"{name}: folder {shown(folder)} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{name}: folder {shown(folder)} is read-only; choose another one")


def check_output(
    path: PathLike, inputs: Iterable[PathLike | None], suffixes: Iterable[str], new_folder: bool = False
) -> None:
    """Says before any work that ``path`` could not be written: raises InputError.

    Its folder must exist (``new_folder``: or one above it, as ``make_folder`` makes the rest) and be writable, its
    extension be one of ``suffixes``, and it must be no folder and none of ``inputs``, not even through a link. None
    among the inputs is skipped.
    """
    name, target, known = shown(path), _real(path), tuple(suffixes)
    if os.path.isdir(target):
        raise InputError(f"{name}: is a folder; name a file in it")
    if not Path(path).suffix and not os.path.exists(target):
        cure = f"name a file such as {name}{known[0]}; a folder is for many inputs"
        raise InputError(f"{name}: has no extension, which says the format: {cure}")
    if Path(path).suffix.lower() not in known:
        raise InputError(f"{name}: unknown extension '{Path(path).suffix}'; use one of {', '.join(known)}")
    folder = target.parent
    while new_folder and not os.path.exists(folder):
        folder = folder.parent
    _check_folder(name, folder)
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{name}: is no ordinary file; choose another name")
    for other in inputs:
        if other is None:
            continue
        same = os.path.exists(target) and os.path.exists(other) and os.path.samefile(target, other)
        if same or _real(other) == target:
            raise InputError(f"{name}: is also an input ({shown(other)}); choose another name")


@contextmanager
def held_folder(inside: Path, prefix: str) -> Iterator[Path]:
    """A new folder in ``inside``, gone with all that is in it at the end; meanwhile ``sweep`` leaves it alone."""
    with tempfile.TemporaryDirectory(dir=inside, prefix=prefix) as name:
        held = os.open(name, os.O_RDONLY) if fcntl is not None else None
        try:
            if held is not None:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
            yield Path(name)
        finally:
            if held is not None:
                os.close(held)


def sweep(inside: Path, prefix: str) -> None:
    """Remove from ``inside`` the folders of ``held_folder`` whose process was killed, over a minute ago."""
    for folder in inside.glob(f"{prefix}*") if fcntl is not None else ():
        with suppress(OSError):  # somebody else's, or held by a process that lives
            if time.time() - folder.stat().st_mtime < 60:
                continue  # may be new, and not held yet
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """No other process works in the folder of ``lock``, a file that is there meanwhile (Windows has no such locks).

    The folder is made; what was made is removed again if it stays empty. Raises InputError.
    """
    if fcntl is None:
        yield
        return
    made = [folder for folder in lock.parents if not folder.exists()]
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
            except BlockingIOError as error:
                cure = "another process is at work there: wait for it, or end it"
                raise InputError(f"{shown(lock.parent)}: {cure}") from error
            try:
                there = os.path.samestat(lock.stat(), os.fstat(file.fileno()))
            except FileNotFoundError:
                there = False
            if not there:
                continue  # who had it until now has deleted it: it locks nothing
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    for folder in made:
                        folder.rmdir()
            return
