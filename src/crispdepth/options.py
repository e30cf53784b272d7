"""Options: what may be asked for of measured depth, and which of it contradicts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from crispdepth.kernel import KERNEL
from crispdepth.noise import DENOISE
from crispdepth.shift import ALIGN
from crispdepth.types import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one low map is worked on (``careful``); each as ``predict`` tells it."""

    align: str | None = None
    shift: tuple[int, int] | None = None
    denoise: str = "auto"
    kernel: str = "auto"
    once: bool = False
    levels: bool = False
    hard_edges: bool = False

    def words(self) -> dict[str, Any]:
        """Each option by its name."""
        return {field.name: getattr(self, field.name) for field in fields(Options)}

    def asked(self) -> list[str]:
        """The names of those that ask for something: what looks at no measured depth can do none of them."""
        usual = Options(align="off" if self.align == "off" else None).words()
        return [name for name, value in self.words().items() if value != usual[name]]

    def check(self, picture: bool) -> None:
        """Raise InputError for unknown words, for what contradicts, and for what needs a ``picture`` where none is."""
        for name, known in (("align", ALIGN), ("denoise", DENOISE), ("kernel", KERNEL)):
            word = getattr(self, name)
            if word not in known and (word is not None or name != "align"):
                raise InputError.unknown(name, word, known)
        if not picture and self.align not in (None, "off"):
            raise InputError(f"--align {self.align} compares the depth with the colours: pass --rgb (rgb=…)")
        if not picture and self.kernel == "points":
            raise InputError("--kernel points finds in the colours which pixels were read: pass --rgb (rgb=…)")
        if self.kernel == "points" and self.align not in (None, "off"):
            both = f"--kernel points tells where the depth lies, as --align {self.align} does"
            raise InputError(f"{both}: leave one of them out")
        if self.once and self.kernel == "average":
            both = "--kernel average turns the readings for a second run, which --once (once=…) forbids"
            raise InputError(f"{both}: leave one of them out")
        if self.shift is not None and self.align not in ("guide", "auto"):
            raise InputError("shift=… says by how much; align='guide' or 'auto' says what is moved: add it")


USUAL = Options()
