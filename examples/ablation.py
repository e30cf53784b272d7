"""What the ablations share: their arguments, runs that are done once, and tables of mean ± spread over the seeds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from crispdepth.bench.report import write_between
from crispdepth.training.examples import Scenes
from crispdepth.training.recipes import changed, find
from crispdepth.training.run import last_validation, train

Figures = dict[str, str]  # of a run's last validation, by name; empty where there was none


def arguments(doc: str | None, folder: str, steps: int, rows: Iterable[str]) -> argparse.ArgumentParser:
    """A parser that knows what every ablation takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(folder), help="of the runs")
    parser.add_argument("--quick", action="store_true", help="a step or two of a row or two, to see that it runs")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=list(rows), help="by default all")
    parser.add_argument("--scenes-folder", type=Path, help="keeps made scenes for other runs")
    parser.add_argument("--done", action="store_true", help="train nothing: print what is done")
    parser.add_argument("-o", "--out", type=Path, help="a page with marks such as <!-- ablation -->, for the tables")
    return parser


def trained(recipe: str, words: Sequence[str], folder: Path, scenes_folder: Path | None) -> None:
    """Train into ``folder`` on made-up scenes, on a GPU where there is one; nothing where that is done."""
    if not last_validation(folder):
        train(changed(find(recipe), list(words)), folder, source=Scenes(scenes_folder))


def place(folder: Path, row: str, seed: int | str) -> Path:
    """Where the run of one row with one seed is."""
    return folder / f"{row.replace(',', '').replace(':', '').replace('%', 'percent').replace(' ', '-')}-{seed}"


def table(head: str, rows: Mapping[str, Iterable[Figures]], columns: Mapping[str, str]) -> str:
    """Each row's mean ± standard deviation over its runs, and how many these are; rows without any are left out."""
    heads = [head, "seeds", *columns.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row, runs in rows.items():
        done = [run for run in runs if run]
        if done:
            lines.append(f"| {row} | {len(done)} | {' | '.join(_cell(done, name) for name in columns)} |")
    return "\n".join(lines)


def show(lines: str, out: Path | None, mark: str = "ablation") -> None:
    """Print a table, and write it between the ``mark`` of the page ``out``."""
    print(lines)
    if out:
        write_between(out, mark, lines)


def _cell(runs: Sequence[Figures], name: str) -> str:
    values = [float(run[name]) for run in runs if run.get(name)]
    if not values:
        return "none"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
