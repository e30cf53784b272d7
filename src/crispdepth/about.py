"""names and info: what there is, and what each thing needs."""

from __future__ import annotations

import json
from pathlib import Path

from crispdepth.bench.protocol import PROTOCOLS
from crispdepth.data.sets import SETS
from crispdepth.models.catalog import CATALOG, DEFAULT, DEFAULT_WITHOUT_LOW, DEFAULT_WITHOUT_RGB, SHORT, load
from crispdepth.types import InputError
from crispdepth.units import UNITS

FIGURES = Path(__file__).parent / "bench" / "numbers.json"  # written by `make bench`


def names() -> str:
    """Models, data sets, protocols and units, a line each."""
    width = max(map(len, CATALOG))
    model_lines = [f"  {name:{width}s} {row.task}{_mark(name)}" for name, row in CATALOG.items()]
    set_lines = [f"  {name:16s} {row.layout}" for name, row in SETS.items()]
    protocol_lines = [f"  {name:16s} {row.used_by}" for name, row in PROTOCOLS.items()]
    unit_lines = [f"  {name:16s} {row.text}" for name, row in UNITS.items()]
    blocks = ["models", *model_lines, "", "data sets", *set_lines, "", "protocols", *protocol_lines]
    return "\n".join([*blocks, "", "units", *unit_lines])


def _mark(name: str) -> str:
    if name == DEFAULT:
        return " (default)"
    if name == DEFAULT_WITHOUT_LOW:
        return " (default without --low)"
    return " (default without --rgb)" if name == DEFAULT_WITHOUT_RGB else ""


def info(name: str) -> str:
    """What each model, data set, protocol and unit of this name is. Raises InputError offering the nearest names."""
    name = SHORT.get(name, name)
    rooms = ((CATALOG, _model), (SETS, _set), (PROTOCOLS, _protocol), (UNITS, _unit))
    found = [described(name) for rows, described in rooms if name in rows]
    if not found:
        raise InputError.unknown("model, data set, protocol or unit", name, [*CATALOG, *SETS, *PROTOCOLS, *UNITS])
    return "\n\n".join(found)


def _set(name: str) -> str:
    row = SETS[name]
    unit = {"m": "metres", "levels": "8-bit levels"}.get(row.unit, "as --unit says")
    return f"data set {name}\n  unit      {unit}\n  needs     {row.layout}\n  source    {row.source}"


def _protocol(name: str) -> str:
    protocol = PROTOCOLS[name]
    metres = protocol.describe("", "cm")
    levels = protocol.describe("", "levels")
    lines = [f"protocol {name}", f"  used by   {protocol.used_by}", f"  metres    {metres}"]
    exceptions = [f"{px} px on {set_name}" for set_name, px in protocol.borders.items()]
    exceptions += [f"{s} clipped to {a:g}–{b:g} m" for s, (a, b) in protocol.clip_truth_m.items()]
    lines += [f"  levels    {levels}", f"  authors' normalisation: {protocol.normalisation}"]
    return "\n".join(lines + [f"  but       {', '.join(exceptions)}"] * bool(exceptions))


def _unit(name: str) -> str:
    return f"unit {name}\n  means     {UNITS[name].text}"


def _model(name: str) -> str:
    row = CATALOG[name]
    lines = [
        f"model {name}{_mark(name)}",
        f"  task       {row.task}",
        f"  needs      {', '.join(f'--{i}' for i in row.inputs)}",
        f"  licence    {row.licence}",
        f"  source     {row.source}",
    ]
    if row.hub:
        return "\n".join([*lines, f"  weights    {row.hub} on huggingface.co, fetched at first use"])
    try:
        model = load(name)
    except InputError as error:
        return "\n".join([*lines, f"  but        {error}"])
    count = sum(p.numel() for p in model.parameters())
    unit = "in the unit of what comes in" if "low" in row.inputs else "metres"
    lines += [f"  depth is   {model.kind} ({unit})"]
    lines += [f"  parameters {count:,}" + ("" if count else " (a filter without weights)")]
    config = getattr(model, "config", None)
    lines += [f"  settings   {config}"] * (config is not None)
    measured = json.loads(FIGURES.read_text(encoding="utf-8")).get(name) if FIGURES.is_file() else None
    if not measured:
        return "\n".join([*lines, "  numbers    not measured yet: make bench"])
    protocols = "protocol fdsr" if "low" in row.inputs else "protocols rgb and eigen"
    lines.append(f"  numbers    {protocols}, by `make bench`; all of them: docs/numbers.md")
    return "\n".join([*lines, *(f"    {key:16s} {value}" for key, value in measured.items())])
