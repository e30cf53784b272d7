"""What helps Symbiotic: exchange modules, mixes, labels and teachers, trained alike on a short budget of scenes.

    python examples/ablate_symbiotic.py runs/symbiotic --steps 600 --seeds 3 [--tables exchange,mix,labels]
        [--scenes-folder FOLDER] [-o docs/symbiotic.md] [--quick]

Every row trains symbiotic-tiny on made-up scenes, once for each seed, and is measured on 64 scenes that are never
learnt from: RMSE and AbsRel of depth (metres, for one focal length), δ1, mIoU against exact labels; mean ± standard
deviation over the seeds. The mixes and the labels have few scenes to learn from, again and again. Rows that are done
are not trained again, so a stopped run goes on, and processes may share the rows.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from crispdepth.bench.report import write_between
from crispdepth.data.nearfarmix import MIXES
from crispdepth.models.symbiotic import EXCHANGES
from crispdepth.training import task
from crispdepth.training.examples import Scenes
from crispdepth.training.recipes import changed, find
from crispdepth.training.run import train

FEW = "distinct=25"  # batches of 8: 200 scenes
TABLES: dict[str, dict[str, list[str]]] = {
    "exchange": {name: [f"network.exchange={name}", "mix="] for name in EXCHANGES},
    "mix": {"none": [FEW, "mix="]} | {name: [FEW, f"mix={name}"] for name in MIXES},
    "labels": {
        "10 % of the labels": ["distinct=100", "labels=0.1", "mix="],
        "10 % and a teacher": ["distinct=100", "labels=0.1", "mix=", "teacher=10 % of the labels"],
        "all labels": ["distinct=100", "mix="],
    },
}
COLUMNS = {"rmse": "RMSE, m", "absrel": "AbsRel", "delta1": "δ1", "miou": "mIoU"}


def main() -> None:
    """Train the tables asked for and print all that is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/symbiotic-ablation"))
    parser.add_argument("--quick", action="store_true", help="one step of three rows, to see that it runs")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="symbiotic-tiny")
    parser.add_argument("--side", type=int, default=128, help="of the squares, 8 a step")
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--rows", default="", help="names, with commas between; by default all of a table")
    parser.add_argument("--scenes-folder", type=Path)
    parser.add_argument("--done", action="store_true", help="train nothing: print what is done")
    parser.add_argument("-o", "--out", type=Path, help="a page with marks <!-- exchange --> …, for the tables")
    asked = parser.parse_args()
    tables = {name: TABLES[name] for name in asked.tables.split(",")}
    if asked.rows:
        wanted = asked.rows.split(",")
        tables = {name: {row: rows[row] for row in rows if row in wanted} for name, rows in tables.items()}
    small = []
    task.VALIDATION_SCENES = 64
    if asked.quick:
        task.VALIDATION_SCENES, task.VALIDATION_SIZE = 1, (32, 64)
        asked.steps, asked.seeds, asked.folder = 1, 1, asked.folder / "quick"
        small = ["patches=[[2, 32]]", 'network.encoder={"model_type":"convnext","hidden_sizes":[8,8,8,8]}']
        tables = {"exchange": {"dss": TABLES["exchange"]["dss"]}, "labels": dict(list(TABLES["labels"].items())[:2])}
    asked.folder /= f"{asked.recipe}-{asked.side}-{asked.steps}"  # budgets never mix in one table
    base = [
        f"steps={asked.steps}",
        f"validate_every={asked.steps}",
        "warmup=50",
        "ema=0.99",
        f"patches=[[8, {asked.side}]]",
    ]
    for seed in range(0 if asked.done else asked.seeds):  # a whole table is there early, its spread comes later
        for table, rows in tables.items():
            for row, words in rows.items():
                recipe = [asked.recipe, *base, *small, f"seed={seed}", *words]
                _trained(asked.folder, table, row, recipe, asked.scenes_folder)
    for table, rows in tables.items():
        head = f"{asked.steps} steps; how many seeds; {task.VALIDATION_SCENES} scenes"
        lines = [f"| {head} | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
        for row in rows:
            found = [_last(_place(asked.folder, table, row, seed)) for seed in range(asked.seeds)]
            done = [figures for figures in found if figures]
            if done:
                cells = [_cell([float(f[c]) for f in done]) for c in COLUMNS]
                lines.append(f"| {row}, {len(done)} | {' | '.join(cells)} |")
        print("\n".join(["", table, *lines]))
        if asked.out:
            write_between(asked.out, table, "\n".join(lines))


def _trained(folder: Path, table: str, row: str, words: list[str], scenes_folder: Path | None) -> None:
    """Train one row with one seed, unless it is done; a teacher is a row of the same table and seed."""
    seed = int(next(w for w in words if w.startswith("seed=")).removeprefix("seed="))
    place = _place(folder, table, row, seed)
    if _last(place):
        return
    taught = [w.removeprefix("teacher=") for w in words if w.startswith("teacher=")]
    words = [w for w in words if not w.startswith("teacher=")]
    words += [f"teacher={_place(folder, table, name, seed) / 'weights.safetensors'}" for name in taught]
    train(changed(find(words[0]), words[1:]), place, source=Scenes(scenes_folder))


def _place(folder: Path, table: str, row: str, seed: int) -> Path:
    return folder / table / row.replace(" ", "-").replace("%", "percent") / f"seed-{seed}"


def _last(folder: Path) -> dict[str, str]:
    """The last validation of a run; empty when there is none."""
    lines = [
        row
        for path in sorted(folder.glob("metrics/*/metrics.csv"))
        for row in csv.DictReader(path.read_text().splitlines())
    ]
    done = [row for row in lines if row.get("absrel")]
    return done[-1] if done else {}


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
