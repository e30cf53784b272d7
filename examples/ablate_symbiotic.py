"""What helps Symbiotic: exchange modules, mixes, labels and teachers, trained alike on a short budget of scenes.

    python examples/ablate_symbiotic.py runs/symbiotic --steps 600 --seeds 3 [--tables exchange,mix,labels]
        [--scenes-folder FOLDER] [-o docs/symbiotic.md] [--quick]

Every row trains symbiotic-tiny on made-up scenes, once for each seed, and is measured on 64 scenes that are never
learnt from: RMSE and AbsRel of depth (metres, for one focal length), δ1, mIoU against exact labels; mean ± standard
deviation over the seeds. The mixes and the labels have few scenes to learn from, again and again. Rows that are done
are not trained again, so a stopped run goes on, and processes may share the rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from crispdepth.data.nearfarmix import MIXES
from crispdepth.models.symbiotic import EXCHANGES
from crispdepth.training import task
from crispdepth.training.run import last_validation

sys.path.insert(0, str(Path(__file__).parent))

from ablation import arguments, place, show, table, trained

FEW = "distinct=25"  # batches of 8: 200 scenes
TABLES: dict[str, dict[str, list[str]]] = {
    "exchange": {name: [f"network.exchange={name}", "mix="] for name in EXCHANGES},
    "mix": {"none": [FEW, "mix="]} | {name: [FEW, f"mix={name}"] for name in MIXES},
    "labels": {
        "10 % of the labels": ["distinct=100", "labels=0.1", "mix="],
        "10 % and a teacher": ["distinct=100", "labels=0.1", "mix=", "teacher=10 % of the labels"],
        "10 % and symbiotic-small": ["distinct=100", "labels=0.1", "mix=", "teacher=symbiotic-small"],
        "all labels": ["distinct=100", "mix="],
    },
}
COLUMNS = {"rmse": "RMSE, m", "absrel": "AbsRel", "delta1": "δ1", "miou": "mIoU"}


def main() -> None:
    """Train the tables asked for and print all that is done."""
    parser = arguments(__doc__, "runs/symbiotic-ablation", 600, [row for rows in TABLES.values() for row in rows])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="symbiotic-tiny")
    parser.add_argument("--side", type=int, default=128, help="of the squares, 8 a step")
    parser.add_argument("--tables", default=",".join(TABLES))
    asked = parser.parse_args()
    tables = {name: TABLES[name] for name in asked.tables.split(",")}
    if asked.rows:
        tables = {name: {row: rows[row] for row in rows if row in asked.rows} for name, rows in tables.items()}
    words = [f"steps={asked.steps}", f"validate_every={asked.steps}", "warmup=50", "ema=0.99"]
    words += [f"patches=[[8, {asked.side}]]"]
    task.VALIDATION_SCENES = 64
    if asked.quick:
        task.VALIDATION_SCENES, task.VALIDATION_SIZE = 1, (32, 64)
        asked.seeds, asked.folder = 1, asked.folder / "quick"
        words += ["steps=1", "validate_every=1", "patches=[[2, 32]]"]
        words += ['network.encoder={"model_type":"convnext","hidden_sizes":[8,8,8,8]}']
        tables = {"exchange": {"dss": TABLES["exchange"]["dss"]}, "labels": dict(list(TABLES["labels"].items())[:2])}
    folder = asked.folder / f"{asked.recipe}-{asked.side}-{asked.steps}"  # budgets never mix in one table
    for seed in range(0 if asked.done else asked.seeds):  # a whole table is there early, its spread comes later
        for name, rows in tables.items():
            for row, change in rows.items():
                taught = [_teacher(word, folder / name, seed) for word in change]
                run = place(folder / name, row, seed)
                trained(asked.recipe, [*words, f"seed={seed}", *taught], run, asked.scenes_folder)
    for name, rows in tables.items():
        done = {row: [last_validation(place(folder / name, row, s)) for s in range(asked.seeds)] for row in rows}
        print(f"\n{name}")
        show(table(f"{asked.steps} steps, {task.VALIDATION_SCENES} scenes", done, COLUMNS), asked.out, name)


def _teacher(word: str, folder: Path, seed: int) -> str:
    """``word`` as it is, but a teacher that is a row of the labels' table by its weights, of the same seed."""
    key, _, row = word.partition("=")
    own = key == "teacher" and row in TABLES["labels"]
    return f"teacher={place(folder, row, seed) / 'weights.safetensors'}" if own else word


if __name__ == "__main__":
    main()
