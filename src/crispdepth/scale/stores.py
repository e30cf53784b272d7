"""Folders here and in object stores by the same few verbs: list, fetch, put whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem

from crispdepth.atomic import check_folder, shown
from crispdepth.types import InputError

CLIENTS = ("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure")  # who speak to stores beneath fsspec
WHOLE = ("file", "s3", "gs", "gcs", "az", "abfs")  # stores in which a put file is there whole or not at all
LASTING = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
LASTING_NUMBERS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)  # s3fs: EINVAL for a bad request
PART = re.compile(r"(?P<tar>.*\.tar)#(?P<offset>\d+),(?P<size>\d+)")  # a member of a tar, by its bytes


class Store:
    """A folder: a local path, or a URL such as ``s3://bucket/prefix`` that fsspec knows.

    Credentials and endpoints are the store's own business: the environment or its configuration file.
    Names are paths inside the folder, with ``/``. Raises InputError for a URL nobody can open.
    """

    def __init__(self, url: str) -> None:
        self.fs, root = _opened(url)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    @property
    def url(self) -> str:
        """The folder, absolute, as ``Store`` takes it."""
        return self.url_of("").rstrip("/")

    def url_of(self, name: str) -> str:
        """Where the file ``name`` is: an absolute path, or a URL."""
        path = f"{self.root}/{name}"
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    def names(self, under: str = "") -> list[str]:
        """All files, in subfolders too, of the subfolder ``under``, sorted; none where there is no such folder."""
        found = self.fs.find(f"{self.root}/{under}".rstrip("/"))
        return sorted(str(path)[len(self.root) + 1 :] for path in found)

    def exists(self, name: str) -> bool:
        """Whether there is a file or subfolder ``name``."""
        return bool(self.fs.exists(f"{self.root}/{name}"))

    def read(self, name: str) -> bytes:
        """The bytes of a small file."""
        return bytes(self.fs.cat_file(f"{self.root}/{name}"))

    def open(self, name: str) -> Any:
        """The file, to be read from anywhere in it."""
        return self.fs.open(f"{self.root}/{name}", "rb")

    def put(self, staged: Path, name: str) -> None:
        """Move the local file ``staged`` here, over what is there: seen whole or not at all, whatever is killed.

        A local folder must be on the disk of ``staged`` (see ``staging``).
        """
        target = f"{self.root}/{name}"
        if not self.is_local:
            self.fs.put_file(str(staged), target)
            staged.unlink()
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(staged, target)

    def remove(self, name: str) -> None:
        """Delete the file or subfolder ``name``, if there is one."""
        if self.exists(name):
            self.fs.rm(f"{self.root}/{name}", recursive=True)

    def check_writable(self) -> None:
        """Raise InputError for a store in which a killed run could leave half a file, and for a closed folder."""
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        if not protocols & set(WHOLE):
            raise InputError(f"{self.url}: results go to a folder or to one of {', '.join(WHOLE[1:])} (s3://…)")
        if self.is_local:
            check_folder(self.root)


def fetch(url: str, folder: Path, name: str) -> Path:
    """A local file with the bytes of ``url``: itself if it is local, else a copy called ``name`` in ``folder``.

    ``TAR#OFFSET,SIZE`` is a piece of a tar. Raises InputError for what is not there, and what
    ``is_of_the_store`` when that fails.
    """
    part = PART.fullmatch(url)
    fs, path = _opened(part["tar"] if part else url)
    try:
        if part:
            start = int(part["offset"])
            (folder / name).write_bytes(fs.cat_file(path, start, start + int(part["size"])))
        elif isinstance(fs, LocalFileSystem):
            return Path(path)
        else:
            fs.get_file(path, str(folder / name))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{shown(url)}: no such file, or not allowed to read it; check the path") from error
    return folder / name


def is_of_the_store(error: BaseException) -> bool:
    """Whether a disk, a device or a store failed, by what it raised."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENTS


def may_pass(error: BaseException) -> bool:
    """Whether what ``is_of_the_store`` may pass by itself: no wrong name, closed folder or missing credentials."""
    if isinstance(error, LASTING) or getattr(error, "errno", None) in LASTING_NUMBERS:
        return False
    return "Credentials" not in type(error).__name__


@lru_cache(maxsize=8)
def _filesystem(scheme: str, host: str) -> AbstractFileSystem:
    url = f"{scheme}://{host}"
    try:
        # What others write meanwhile must be seen: no listing is remembered.
        fs, _ = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise InputError(f"{shown(url)}: {shown(error)}: pip install 'crispdepth[scale]' brings s3:// only") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{shown(url)}: {shown(error)}: give a folder, or a URL such as s3://bucket/prefix") from error
    return fs


def _opened(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it."""
    scheme, rest = split_protocol(url)
    fs = _filesystem(scheme or "file", rest.partition("/")[0] if scheme else "")
    return fs, str(fs._strip_protocol(url))
