"""What there is to do: the items of a folder, a Parquet list or tars, frozen into numbered chunks."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crispdepth.atomic import shown
from crispdepth.data.folder import FILES, stem
from crispdepth.scale.stores import Store
from crispdepth.types import InputError

INPUTS = ("low", "rgb", "confidence")
SCHEMA = pa.schema([(name, pa.string()) for name in ("name", *INPUTS, "fault")])
QUARANTINED = "quarantined"
ANY = ".*"  # ends the place of a partner that was missing: whatever its extension will be
FIELDS = {
    "depth": "low",
    "jpg": "rgb",
    "jpeg": "rgb",
    "png": "rgb",
    "color": "rgb",
    "webp": "rgb",
}  # other words in a tar


@dataclass(frozen=True)
class Item:
    """One depth map to be: its ``name`` (a path without extension) and the URLs of its inputs.

    ``fault``: why it cannot be done, known beforehand, such as a missing picture; its URL is then the place where it
    should be, such as ``/frames/rgb/a.*``.
    """

    name: str
    low: str | None = None
    rgb: str | None = None
    confidence: str | None = None
    fault: str | None = None


def find(source: str) -> Iterator[Item]:
    """The items of ``source``, a local path or a URL:

    - a folder with ``low/`` (or ``depth/``), perhaps ``rgb/`` (or ``color/``) and ``confidence/``, paired by path and
      stem;
    - a ``.parquet`` list with a column ``low``, perhaps ``rgb``, ``confidence`` (paths relative to the list, or URLs)
      and ``name``; where there is a column ``status`` (a manifest of ours) its quarantined rows only, and partners
      that were missing are looked for again;
    - a ``.tar``, or a folder of them, in WebDataset's layout: ``KEY.low.png``, ``KEY.rgb.jpg`` (or ``KEY.jpg``,
      ``KEY.png``), ``KEY.confidence.png``.

    Raises InputError when there is nothing to do, and for names that occur twice or lead out of the folder.
    """
    seen: set[str] = set()
    for item in _found(source):
        path = PurePosixPath(item.name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in item.name
            or not path.name
            or not item.name.isprintable()
        ):
            raise InputError(f"{shown(source)}: {shown(repr(item.name))} cannot name a file: use words and /")
        if item.name in seen:
            tar, mark, _ = (item.low or item.rgb or item.confidence or "").partition(".tar#")
            cure = f"{shown(tar)}.tar repeats its key; rename it, or give each .tar a job of its own"
            raise InputError(f"{shown(source)}: two items are called {item.name}: {cure if mark else 'rename one'}")
        seen.add(item.name)
        yield item
    if not seen:
        cure = (
            "give a folder with low/ and rgb/, a list or a .tar; files all in one folder are for `crispdepth predict`"
        )
        raise InputError(f"{shown(source)}: there is nothing to do; {cure}")


def has_pictures(source: str) -> bool:
    """Whether ``source`` has pictures beside its low maps: its folders say so, or else its first item."""
    if not source.endswith((".parquet", ".tar")):
        store = Store(source)
        if _low_folder(store) is not None:
            return _rgb_folder(store) is not None
    return any(item.rgb is not None for item in islice(_found(source), 1))


def _low_folder(store: Store) -> str | None:
    return next((folder for folder in ("low", "depth") if store.exists(folder)), None)


def _rgb_folder(store: Store) -> str | None:
    return next((folder for folder in ("rgb", "color") if store.exists(folder)), None)


def _found(source: str) -> Iterator[Item]:
    if source.endswith((".parquet", ".tar")):
        place, _, file = source.rpartition("/")
        store = Store(place or ".")
        if not store.exists(file):
            raise InputError(f"{shown(source)}: no such file; check the path")
        return _listed(store, file) if file.endswith(".parquet") else _in_tar(store, file)
    store = Store(source)
    if store.fs.isfile(store.root):
        raise InputError(
            f"{shown(source)}: give a folder, a .parquet list or a .tar; a .tar.gz must be unpacked to .tar"
        )
    if not store.fs.isdir(store.root):
        raise InputError(f"{shown(source)}: no such folder; check the path")
    low = _low_folder(store)
    if low is not None:
        return _in_folders(store, low)
    tars = [name for name in store.names() if name.endswith(".tar")]
    return (item for tar in tars for item in _in_tar(store, tar))


def _in_folders(store: Store, low: str) -> Iterator[Item]:
    """Pairs by path and stem. A file without its partner is an item with a fault: nothing is lost."""
    folders = {"low": low, "rgb": _rgb_folder(store) or "rgb", "confidence": "confidence"}
    found = {field: _by_key(store, folder) for field, folder in folders.items() if store.exists(folder)}
    for key in sorted(set().union(*found.values())):
        missing = [folders[field] for field in found if key not in found[field]]
        fault = f"has no partner of that name in {' and '.join(missing)}" if missing else None
        urls = {field: store.url_of(files.get(key, f"{folders[field]}/{key}{ANY}")) for field, files in found.items()}
        yield Item(key, **urls, fault=fault)


def _by_key(store: Store, folder: str) -> dict[str, str]:
    """Files of ``folder`` by path and stem inside it."""
    found: dict[str, str] = {}
    for name in store.names(folder):
        path = PurePosixPath(name).relative_to(folder)
        if path.suffix.lower() not in FILES or any(part.startswith(".") for part in path.parts):
            continue
        key = str(path.parent / stem(Path(path)))
        if key in found:
            raise InputError(f"{name} and {found[key]} pair by the same name: rename one")
        found[key] = name
    return found


def _listed(store: Store, file: str) -> Iterator[Item]:
    with store.open(file) as opened, _whole(store.url_of(file)):
        table = pq.ParquetFile(opened)  # read by this thread alone, here and below: see scale.manifest
        columns = [name for name in ("name", *INPUTS, "fault", "status") if name in table.schema_arrow.names]
        if "low" not in columns:
            raise InputError(f"{store.url_of(file)}: has no column low; name it so (and rgb, confidence, name)")
        for name in columns:
            if not _is_text(kind := table.schema_arrow.field(name).type):
                raise InputError(
                    f"{store.url_of(file)}: column {name} is {kind}, not text: write its values as strings"
                )
        folders: dict[str, dict[str, str]] = {}
        for rows in table.iter_batches(batch_size=1024, columns=columns, use_threads=False):
            for row in rows.to_pylist():
                if row.pop("status", QUARANTINED) == QUARANTINED:
                    yield _of_row(store, row, folders)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # pandas' category
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


@contextmanager
def _whole(url: str) -> Iterator[None]:
    """What pyarrow raises for a damaged list becomes an InputError; what the disk or the store raises stays."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{url}: is no Parquet file, or damaged: {shown(error)[:200]}; write it again") from error


def _of_row(store: Store, row: dict[str, Any], folders: dict[str, dict[str, str]]) -> Item:
    name, fault = row.get("name") or _name_of(row.get("low")), row.get("fault")
    urls = {field: _by_now(_absolute(store, row[field]), folders) for field in INPUTS if row.get(field)}
    missing = [shown(url) for url in urls.values() if url.endswith(ANY)]
    if missing:
        fault = f"has no partner {' and '.join(missing)}: supply it"
    return Item(name, **urls, fault=fault or (None if "low" in urls else "has no low in the list"))


def _by_now(url: str, folders: dict[str, dict[str, str]]) -> str:
    """The file at the place of a partner that was missing, if it is there by now; ``folders``: those listed so far."""
    if not url.endswith(ANY):
        return url
    folder, _, key = url.removesuffix(ANY).rpartition("/")
    if folder not in folders:
        store = Store(folder)
        folders[folder] = {name: store.url_of(file) for name, file in _by_key(store, "").items()}
    return folders[folder].get(key, url)


def _name_of(low: str | None) -> str:
    if not low or "://" in low or low.startswith("/"):
        raise InputError(f"low {shown(low)} in the list gives no name for the result: add a column name")
    path = PurePosixPath(low)
    return str(path.parent / stem(Path(path)))


def _absolute(store: Store, path: str) -> str:
    return path if "://" in path or path.startswith("/") else store.url_of(path)


def _in_tar(store: Store, file: str) -> Iterator[Item]:
    """WebDataset's samples: neighbours with one key, which ends at the first dot of the file's name."""
    last = ""
    urls: dict[str, str] = {}
    for name, url in _members(store, file):
        folder, slash, base = name.rpartition("/")
        key, _, ending = base.partition(".")
        word = ending.split(".")[0].lower()
        field = FIELDS.get(word, word)
        if folder + slash + key != last and urls:
            yield _of_sample(last, urls)
            urls = {}
        last = folder + slash + key
        if field in INPUTS:
            urls[field] = url
    if urls:
        yield _of_sample(last, urls)


def _of_sample(key: str, urls: dict[str, str]) -> Item:
    return Item(key, **urls, fault=None if "low" in urls else "has no KEY.low.png in the tar")


def _members(store: Store, file: str) -> Iterator[tuple[str, str]]:
    """Name and place of each file in a tar; only headers are read."""
    with store.open(file) as opened:
        try:
            with tarfile.open(fileobj=opened, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    if member.isfile():
                        yield member.name, f"{store.url_of(file)}#{member.offset_data},{member.size}"
        except tarfile.TarError as error:
            raise InputError(f"{store.url_of(file)}: is no whole tar: {shown(error)}") from error


# ----------------------------------------------------------------------------------- chunks


def write_plan(items: Iterable[Item], path: Path, chunk: int) -> None:
    """The items as Parquet, each ``chunk`` of them a row group: a chunk is read alone, by its number."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        source = iter(items)
        while rows := list(islice(source, chunk)):
            writer.write_table(pa.Table.from_pylist([vars(item) for item in rows], SCHEMA), row_group_size=chunk)


class Plan:
    """A plan that ``write_plan`` wrote, open."""

    def __init__(self, opened: Any) -> None:
        self.file = pq.ParquetFile(opened)

    @property
    def chunks(self) -> int:
        """How many there are."""
        return int(self.file.num_row_groups)

    @property
    def items(self) -> int:
        """How many there are."""
        return int(self.file.metadata.num_rows)

    def size_of(self, number: int) -> int:
        """How many items chunk ``number`` has."""
        return int(self.file.metadata.row_group(number).num_rows)

    def chunk(self, number: int) -> list[Item]:
        """The items of one chunk."""
        return [Item(**row) for row in self.file.read_row_group(number, use_threads=False).to_pylist()]
