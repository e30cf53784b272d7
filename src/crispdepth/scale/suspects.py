"""Chunks in which a process died: done again item by item, so that one that kills its process is found and left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crispdepth.scale.stores import Store

DEADLY = 2  # deaths at one item, done by itself, that are no accident


class Suspects:
    """Notes in ``store``, under ``work``: which chunks were begun, and which item is being done by itself."""

    def __init__(self, store: Store, work: str, folder: Path) -> None:
        self.store, self.work, self.folder = store, work, folder

    def begin(self, number: int) -> bool:
        """Note that chunk ``number`` is begun. Returns whether it was before: then a process ended in it."""
        name = f"{self.work}/begun-{number:08d}"
        if self.store.exists(name):
            return True
        self._put(name, "")
        return False

    @contextmanager
    def alone(self, number: int, place: int) -> Iterator[int]:
        """While the item at ``place`` of chunk ``number`` is done by itself; gives the deaths there so far.

        What ends with an exception is no death.
        """
        name = f"{self.work}/alone-{number:08d}"
        noted = json.loads(self.store.read(name)) if self.store.exists(name) else {}
        deaths = noted.get("deaths", {})
        if (died := noted.get("now")) is not None:
            deaths[died] = deaths.get(died, 0) + 1
        so_far = deaths.get(str(place), 0)
        self._put(name, json.dumps({"now": None if so_far >= DEADLY else str(place), "deaths": deaths}))
        try:
            yield so_far
        finally:
            self._put(name, json.dumps({"deaths": deaths}))

    def _put(self, name: str, text: str) -> None:
        path = self.folder / "note"
        path.write_text(text, encoding="utf-8")
        self.store.put(path, name)
