"""The units depth is stored in: metres, millimetres, KITTI, TUM, own values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crispdepth.types import InputError


@dataclass(frozen=True)
class Unit:
    """One way to store depth. ``metres`` per stored value, or None for the file's own values."""

    name: str
    metres: float | None
    integer: bool  # storable as uint16
    text: str

    @property
    def depth_unit(self) -> str:
        """The unit of the array in memory: ``m``, or the name itself for own values."""
        return self.name if self.metres is None else "m"


UNITS = {
    unit.name: unit
    for unit in (
        Unit("m", 1.0, False, "metres"),
        Unit("mm", 0.001, True, "millimetres: phones, Kinect, ROS 16UC1"),
        Unit("kitti", 1 / 256, True, "metres = v / 256"),
        Unit("tum", 1 / 5000, True, "metres = v / 5000: TUM RGB-D"),
        Unit("sunrgbd", 0.001, True, "metres = ((v >> 3) | (v << 13)) / 1000, 16 bits"),
        Unit("realsense:SCALE", 0.001, True, "metres = v * SCALE, such as realsense:0.001"),
        Unit("disparity", None, True, "the file's own values, larger is nearer, 0 = no reading"),
        Unit("relative", None, True, "the file's own values, 0 is a value"),
    )
}


_SPELLINGS = {
    "metres": "m",
    "meters": "m",
    "millimetres": "mm",
    "millimeters": "mm",
    "cm": "realsense:0.01",
    "depth": "relative",
}


def parse_unit(name: str) -> Unit:
    """The row of ``UNITS`` called ``name``; ``realsense:0.00025`` carries its own scale.

    Raises InputError that lists the choices and the nearest one.
    """
    word = str(name).strip().lower()
    if word in UNITS and word != "realsense:scale":
        return UNITS[word]
    if word == "realsense" or word.startswith("realsense:"):
        return _realsense(word.removeprefix("realsense").removeprefix(":"))
    raise InputError.unknown("unit", word, UNITS, _SPELLINGS)


def _realsense(text: str) -> Unit:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 1e-6 <= scale <= 1:
        cure = (
            f"realsense:{1 / scale:g}, if that is steps to a metre"
            if 1 < scale <= 1e6
            else "realsense:0.001 (D400 cameras)"
        )
        raise InputError(f"unit realsense needs metres per stored value: write {cure}")
    return replace(UNITS["realsense:SCALE"], name=f"realsense:{scale!r}", metres=scale)
