"""What became of each item: status, reason, size, checksum; a part for each chunk, one manifest at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crispdepth.scale.plan import INPUTS, QUARANTINED, Item
from crispdepth.scale.stores import Store

DONE = "done"
MANIFEST, BAD = "manifest.parquet", "quarantine.jsonl"
PARTS_IN_A_GROUP = 64  # of the manifest: few large row groups are read faster


@dataclass(frozen=True)
class Row:
    """One item's line of the manifest. ``out``: the file's name under the output folder; sizes in bytes and pixels."""

    name: str
    status: str
    reason: str | None = None
    out: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    low: str | None = None
    rgb: str | None = None
    confidence: str | None = None


_WHOLE_NUMBERS = ("bytes", "width", "height")
SCHEMA = pa.schema([(f.name, pa.int64() if f.name in _WHOLE_NUMBERS else pa.string()) for f in fields(Row)])


def write_part(rows: Iterable[Row], path: Path) -> None:
    """The rows of one chunk."""
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], SCHEMA), path)


def write_manifest(store: Store, parts: list[str], folder: Path) -> Counter[str]:
    """All parts as one manifest in ``store``, staged in ``folder``; how many items have which status.

    Where there is a manifest already, the parts' rows take the place of its own of these names.

    ``quarantine.jsonl`` holds the bad items again, a line each; it is there only if there are any. The manifest comes
    last: where it is, the job is finished.
    """
    counts: Counter[str] = Counter()
    with pq.ParquetWriter(folder / MANIFEST, SCHEMA) as writer, (folder / BAD).open("w", encoding="utf-8") as bad:
        for group in _mended(store, parts) if store.exists(MANIFEST) else _together(store, parts):
            writer.write_table(group, row_group_size=group.num_rows)
            for row in group.to_pylist():
                counts[row["status"]] += 1
                if row["status"] == QUARANTINED:
                    kept = {key: row[key] for key in ("name", "reason", "low", "rgb") if row[key]}
                    bad.write(json.dumps(kept, ensure_ascii=False) + "\n")
    if counts[QUARANTINED]:
        store.put(folder / BAD, BAD)
    store.put(folder / MANIFEST, MANIFEST)
    return counts


def _together(store: Store, parts: list[str]) -> Iterator[pa.Table]:
    for start in range(0, len(parts), PARTS_IN_A_GROUP):
        tables = [_table(store, name) for name in parts[start : start + PARTS_IN_A_GROUP]]
        yield pa.concat_tables(tables).combine_chunks()


def _mended(store: Store, parts: list[str]) -> Iterator[pa.Table]:
    new = {row["name"]: row for name in parts for row in _table(store, name).to_pylist()}
    with store.open(MANIFEST) as opened:
        file = pq.ParquetFile(opened)
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, use_threads=False).to_pylist()
            yield pa.Table.from_pylist([new.get(row["name"], row) for row in rows], SCHEMA)


def gone(store: Store, there: set[str]) -> Iterator[Item]:
    """The items of a finished job whose results are not among the files ``there``."""
    columns = ["name", "out", *INPUTS]
    with store.open(MANIFEST) as opened:
        for rows in pq.ParquetFile(opened).iter_batches(columns=columns, use_threads=False):
            for row in rows.to_pylist():
                if (out := row.pop("out")) is not None and out not in there:
                    yield Item(**row)


def counts_of(store: Store) -> Counter[str]:
    """How many items of a finished job have which status."""
    with store.open(MANIFEST) as opened:
        column = _whole(opened, ["status"])["status"]
    return Counter({entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()})


def _whole(opened: Any, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, read by this thread alone: one of Arrow's own that still holds a Python file when the program
    ends aborts it (pq.read_table leaves such threads)."""
    return pq.ParquetFile(opened).read(columns=columns, use_threads=False)


def _table(store: Store, name: str) -> pa.Table:
    with store.open(name) as opened:
        return _whole(opened).cast(SCHEMA)
