"""Figures for people: tables with their protocol in the heading, JSON, and docs/numbers.md."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from crispdepth.atomic import atomic
from crispdepth.bench.evaluation import Evaluation, evaluate
from crispdepth.bench.protocol import PROTOCOLS
from crispdepth.models.catalog import CATALOG, load, sharpeners
from crispdepth.types import InputError

# What docs/numbers.md shows: data set, its folder under --root, protocols, scales.
Page = tuple[tuple[str, str | None, tuple[str, ...], tuple[float, ...]], ...]
PAGE: Page = (
    ("scenes", None, ("fdsr",), (4, 8, 16)),
    ("middlebury", "middlebury", ("fdsr",), (2, 3.5, 4, 8, 16, 32)),
    ("middlebury", "middlebury", ("dctnet",), (4, 8, 16)),
    ("lu", "lu", ("fdsr", "dctnet"), (4, 8, 16)),
    ("middlebury_large", "middlebury_large", ("ctkt",), (4, 8, 16)),
    ("middlebury_noisy_x4", "middlebury_large", ("park",), (4,)),
    ("middlebury_noisy_x8", "middlebury_large", ("park",), (8,)),
    ("middlebury_noisy_x16", "middlebury_large", ("park",), (16,)),
    ("rooms", None, ("rgb",), (1,)),
    ("nyu", "nyu", ("eigen",), (1,)),
)
SHORT_SCALES = (4, 8, 16)  # in the README
ALONE = tuple(name for name, row in PROTOCOLS.items() if row.kernel == "none")  # a picture alone
TEXTS = {
    "rmse": "RMSE",
    "mse": "MSE",
    "mad": "MAD",
    "mad_rounded": "MAD, rounded",
    "absrel": "AbsRel",
    "log10": "log10",
    "rmse_log": "RMSlog",
    "delta1": "δ1",
    "delta2": "δ2",
    "delta3": "δ3",
    "miou": "mIoU",
    "edge_rmse": "edge RMSE",
    "flying": "flying",
}
PERCENT = ("flying", "delta1", "delta2", "delta3", "miou")
FINE = ("absrel", "log10", "rmse_log")  # shown to 4 places


def _cell(metric: str, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if metric in PERCENT:
        return f"{value:.1%}"
    return f"{value:.4f}" if metric in FINE else f"{value:.2f}"


@dataclass(frozen=True)
class Table:
    """A Markdown table: the cells of its head, and of each model's row."""

    head: list[str]
    rows: dict[str, list[str]]

    @staticmethod
    def read(text: str) -> Table:
        """The table that begins ``text``; names without their backticks. Raises InputError where there is none."""
        lines = text.strip().partition("\n\n")[0].splitlines()
        if len(lines) < 2 or not all(line.strip().startswith("|") for line in lines):
            raise InputError("there is no table whose rows could stay: leave --models out, so that all are measured")
        head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
        return Table(head[1:], {name.strip("`"): cells for name, *cells in rows})

    def over(self, before: Table, order: Sequence[str]) -> Table:
        """``before`` with these rows in place of its own, in ``order``. Raises InputError where it lacks one."""
        rows = before.rows | self.rows
        missing = [name for name in order if name not in rows]
        if missing or before.head != self.head:
            what = f"no row of {', '.join(missing)}" if missing else "other columns"
            raise InputError(f"the page has {what}: leave --models out, so that all are measured")
        return Table(self.head, {name: rows[name] for name in order})

    def text(self) -> str:
        """Columns under each other."""
        rows = [["model", *self.head], *([name, *cells] for name, cells in self.rows.items())]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
        lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
        return "\n".join(lines)

    def narrow(self, first: str) -> str:
        """As it stands in the README, the models' column headed ``first``."""
        rows = [[first, *self.head], ["---"] * (len(self.head) + 1)]
        rows += [[f"`{name}`", *cells] for name, cells in self.rows.items()]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def tabled(results: Sequence[Evaluation]) -> Table:
    """Results under one heading, as a table."""
    first = results[0]
    assert all(r.heading == first.heading for r in results)
    rows = {r.model: [_cell(m, r.metrics[m]) for m in first.metrics] for r in results}
    return Table([TEXTS[m] for m in first.metrics], rows)


def table(results: Sequence[Evaluation]) -> str:
    """A Markdown table of results under their heading: they must share set, scale and protocol."""
    return f"{results[0].heading}\n\n{tabled(results).text()}"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; the value is called with (done, total)."""
    bar = Progress(console=Console(stderr=True))
    tasks: list[TaskID] = []  # drawn at the first step, so that a mistake is one line and no bar

    def step(done: int, total: int) -> None:
        if not tasks:
            bar.start()
            tasks.append(bar.add_task(what, total=total))
        bar.update(tasks[0], completed=done, total=total)

    try:
        yield step
    finally:
        if tasks:
            bar.stop()


def check_text_output(path: Path) -> None:
    """Raise InputError before any work when ``path`` cannot be written."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: folder {path.parent} does not exist: create it first")


def check_json(path: Path) -> None:
    """The same for a file that must end in .json."""
    if path.suffix.lower() != ".json":
        raise InputError(f"--json {path}: name a file that ends in .json")
    check_text_output(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_between(path: Path, mark: str, text: str) -> None:
    """Put ``text`` between <!-- mark --> and <!-- end of mark --> of a page. Raises InputError where they are not."""
    before, after = around(path, mark)
    write_text(path, f"{before}{text}\n{after}")


def around(path: Path, mark: str) -> tuple[str, str]:
    """A page up to <!-- mark -->, and from <!-- end of mark --> on. Raises InputError where they are not."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = page.partition(f"<!-- {mark} -->\n")
    _, closed, after = rest.partition(f"<!-- end of {mark} -->")
    if not (found and closed):
        raise InputError(f"{path} has no marks <!-- {mark} --> and <!-- end of {mark} --> to write between")
    return before + found, closed + after


def write_numbers(
    root: Path,
    out: Path,
    readme: Path | None = None,
    page: Page = PAGE,
    figures: Path | None = None,
    models: Sequence[str] = (),
) -> None:
    """Measure the whole catalog on ``page`` and write it as Markdown; sets missing under ``root`` are named.

    ``readme``: also put the short table between its two ``numbers`` marks. ``figures``: also write the file that
    ``crispdepth info`` reads. ``models``: measure these alone; the others' rows stay as the files have them.
    """
    check_text_output(out)
    if figures is not None:
        check_json(figures)
    if readme is not None and not readme.is_file():
        raise InputError(f"{readme} does not exist: name the page with the short table")
    short = None if readme is None else _MARKED.search(readme.read_text(encoding="utf-8"))
    if readme is not None and short is None:
        raise InputError(f"{readme} has no marks <!-- numbers --> and <!-- end of numbers --> to write between")
    measurable = dict.fromkeys(name for _, _, protocol, _ in _rows(page) for name in fitting(protocol))
    for name in models:
        if name not in measurable:
            raise InputError.unknown("model to measure here", name, measurable)
    before = _before(out, page, root) if models else {}
    stood = Table.read(short[2]) if models and short is not None else None
    kept: dict[str, dict[str, str]] = {}
    if models and figures is not None:
        if not figures.is_file():
            raise InputError(f"{figures} does not exist, so no figure can stay as it is: leave --models out")
        kept = json.loads(figures.read_text(encoding="utf-8"))
    results: list[list[Evaluation]] = []
    sections, missing = [], []
    for set_name, folder, protocol, scale in _rows(page):
        names = [name for name in fitting(protocol) if not models or name in (*models, "bicubic")]
        title = f"{_titled(set_name, scale, protocol)}, {protocol}"
        if folder is not None and not (root / folder).is_dir():
            missing.append(set_name)
        elif names:
            made = _measure_all(set_name, root / folder if folder else None, protocol, scale, names)
            results.append(made)
            sections.append(f"## {title}\n\n{made[0].heading}\n\n{_renewed(made, before.get(title), models)}")
        else:
            sections.append(f"## {title}\n\n{before[title]}")  # none of models fits this protocol
    if missing:
        sections.append(f"Not measured, since not found under --root: {', '.join(dict.fromkeys(missing))}.")
    summed = None if short is None else summary(results, stood)
    shown = short_figures(results, kept)
    with atomic(out) as temporary:
        temporary.write_text("\n\n".join([_preface(), *sections]) + "\n", encoding="utf-8")
    if figures is not None:
        write_json(figures, shown)
    if readme is not None:
        text = _MARKED.sub(lambda m: f"{m[1]}\n{summed}\n{m[3]}", readme.read_text(encoding="utf-8"))
        with atomic(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")


_MARKED = re.compile(r"(<!-- numbers -->)(.*?)(<!-- end of numbers -->)", re.DOTALL)


def _rows(page: Page) -> Iterator[tuple[str, str | None, str, float]]:
    """Set, folder, protocol and scale of each table of a page."""
    for set_name, folder, protocols, scales in page:
        for protocol in protocols:
            yield from ((set_name, folder, protocol, scale) for scale in scales)


def _before(out: Path, page: Page, root: Path) -> dict[str, str]:
    """A written page: title to what stands below it. Raises InputError where that is not all of ``page``."""
    parts = out.read_text(encoding="utf-8").split("\n\n## ")[1:] if out.is_file() else []
    found = {title: below.strip() for title, _, below in (part.partition("\n\n") for part in parts)}
    for set_name, folder, protocol, scale in _rows(page):
        title = f"{_titled(set_name, scale, protocol)}, {protocol}"
        if folder is not None and not (root / folder).is_dir():
            if title in found:
                raise InputError(f"{root / folder} does not exist, whose rows {out} would lose: leave --models out")
        elif title not in found:
            raise InputError(f"{out} has no table {title!r} whose rows could stay: leave --models out")
    return found


def _renewed(made: Sequence[Evaluation], before: str | None, models: Sequence[str]) -> str:
    """The table of ``made``; where only ``models`` were measured, with the other rows of the section ``before``."""
    fresh = tabled(made)
    if not models:
        return fresh.text()
    heading, _, rows = (before or "").partition("\n\n")
    if heading != made[0].heading:
        raise InputError(f"the page has no table of {made[0].heading}: leave --models out, so that all are measured")
    return fresh.over(Table.read(rows), fitting(made[0].protocol)).text()


def _measure_all(
    set_name: str, root: Path | None, protocol: str, scale: float, names: Sequence[str]
) -> list[Evaluation]:
    results = []
    for name in names:
        with progress_bar(f"{set_name} x{scale} {protocol} {name}") as progress:
            model = load(name)
            results.append(evaluate(model, set_name, root, scale, protocol, name=name, progress=progress))
    return results


def _set_at(result: Evaluation) -> str:
    """The set, and the scale where there is one."""
    return _titled(result.set, result.scale, result.protocol)


def _titled(set_name: str, scale: float, protocol: str) -> str:
    return set_name if protocol in ALONE else f"{set_name} x{scale:g}"


def fitting(protocol: str) -> list[str]:
    """The models of the catalog that ``protocol`` can measure with nothing to fetch."""
    if protocol not in ALONE:
        return sharpeners()
    return [name for name, row in CATALOG.items() if "low" not in row.inputs and not row.hub]


def summary(results: Sequence[Sequence[Evaluation]], before: Table | None = None, protocol: str = "fdsr") -> str:
    """RMSE of every model on every set and scale of one protocol, and its share of bicubic's; unmeasured rows are
    those of ``before``."""
    shown = [r for r in results if r[0].protocol == protocol and r[0].scale in SHORT_SCALES]
    rows: dict[str, list[str]] = {}
    for r in shown:
        plain = next(e for e in r if e.model == "bicubic").metrics["rmse"]
        for e in r:
            rows.setdefault(e.model, []).append(f"{e.metrics['rmse']:.2f} ({e.metrics['rmse'] / plain:.2f})")
    made = Table([f"{_set_at(r[0])}, {r[0].unit}, {len(r[0].images)} images" for r in shown], rows)
    return (made if before is None else made.over(before, sharpeners())).narrow("RMSE")


def short_figures(
    results: Sequence[Sequence[Evaluation]], before: dict[str, dict[str, str]], protocol: str = "fdsr"
) -> dict[str, dict[str, str]]:
    """For ``crispdepth info``: of each model, "scenes x8" and so on to its error with unit and images; those of
    ``before`` where nothing was measured."""
    figures: dict[str, dict[str, str]] = {}
    for result in (e for row in results for e in row if e.protocol in (protocol, *ALONE)):
        value = f"RMSE {result.metrics['rmse']:.2f} {result.unit}, mean of {len(result.images)} images"
        figures.setdefault(result.model, {})[_set_at(result)] = value
    figures = before | figures
    return {name: figures[name] for name in CATALOG if name in figures}


def _preface() -> str:
    rows = "\n".join(f"| `{name}` | {row.used_by} |" for name, row in PROTOCOLS.items())
    return f"""# Numbers

Written by `make bench`, which runs `crispdepth bench --root DIR`; no figure here was typed by hand.

A number means nothing without its protocol, so each table names the kernel that made the low map, the
rounding (`8bit`), the border cut and the unit. RMSE, MAD and edge RMSE (within 3 pixels of true depth edges)
are in that unit, MSE in its square; *flying* is the share of pixels near a true edge that hang between the
two surfaces. Figures on a part of a test set do not compare with papers' figures on the whole; the number of
images stands in each heading. No model was trained on any of these images, but figures on the Middlebury and Lu
pairs were looked at while our models were made, so they are not blind. The classical filters are tuned on made-up
scenes, for bicubic and averaged low maps alike, a criterion that was changed once after a look at Lu (without the
last plain round of back-projection they lost to bicubic at x8); they see the picture stretched to full brightness
because Lu's are dark. Of Crisp, the loss, the share of faults and the learning rate were changed between the stages
of its training after a look at Middlebury, and how edges are corrected, how soft they are and how silhouettes are bent
after a look at the error maps of these pairs (src/crispdepth/weights/crisp.md). Of naima-small, examples of every
scale and sensor were brought forward after a look at them and at scenes (src/crispdepth/weights/naima-small.md). Of
ctkt, examples were turned in its later stages after a look at what eight views bring (src/crispdepth/weights/ctkt.md);
that whole levels, which it draws under protocol ctkt, are nearer to truths in such was counted on its two visible
scenes. That these have hard edges and ragged steps was seen there, before it was taught so and its levels' edges were
hardened (geometry.hardened), by as much as was tried on made-up scenes and on these.
Noise above 0.5 % of the range is taken out before Crisp and Ctkt see a map (docs/sensors.md): that it helps was found
on the two noisy Middlebury scenes. Its strength and patches were chosen on made-up ones, which would have taken a
smaller search window; that, and what counts as noise at all, was settled after a look at these scenes and pairs. That
both are blind to fine relief in flat places, which is put back last (detail.py), was found on the Middlebury and Lu
pairs, where it helps most at x4: made-up scenes have none. On those it was only bounded how much harm it may do, with
noise, rounding and other kernels; how flat is flat, and how much is put back, was settled after a look at the pairs.
When readings count as means (kernel.py), and when a + sees what its first run lacked, was chosen on made-up scenes, and
the pairs were looked at, too. That Crisp by default sees a picture that is clearly out of place moved (shift.py; so for
one of the three Lu pairs), and where it counts as such or readings as single pixels, was settled with these in sight.

| protocol | used by |
| --- | --- |
{rows}"""
