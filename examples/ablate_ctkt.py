"""What depth super-resolution gains from a network that sees colours: CTKT's parts switched on one by one.

    python examples/ablate_ctkt.py runs/ctkt-ablation [-o docs/ctkt.md] [--steps 1000] [--side 160]
        [--rows "DSRNet alone"] [--seeds 0,1,2] [--done] [--scenes-folder FOLDER] [--quick]

Trains every row with every seed on made-up scenes, alike but for the row's own change, and prints RMSE as
a share of bicubic's on validation scenes, mean ± standard deviation over the seeds: a difference smaller than that is
none. A seed means the same first weights of DSRNet and the same examples in each row. Without interaction the two
networks share nothing but the clipping of their gradients, so the first two rows show what chance does.
Runs that are done are not trained again, so a stopped ablation goes on, and processes may share the rows.

Two tables. In the first DENet says how far everything is, and begins from nothing. In the second (AGAIN) it is a
better teacher: it says only what the low map lacks (``agreeing``), and some rows begin with a DENet that has learnt
five times as long before (a run of its own, made first), or the teacher is Crisp, which sees low map and picture.
Its last rows see the same few pictures again and again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from crispdepth.training.distilled import ESTIMATOR
from crispdepth.training.run import last_validation

sys.path.insert(0, str(Path(__file__).parent))

from ablation import arguments, place, show, table, trained

NO_OUTPUT, NO_AFFINITY, NO_STRUCTURE = "output_weight=0", "affinity_weight=0", "structure_weight=0"
ALONE = ["estimation_weight=0", NO_OUTPUT, NO_AFFINITY, NO_STRUCTURE]
AGREES = "agreeing=true"
ROWS = {
    "DSRNet alone": ALONE,
    "joint, no interaction": [NO_OUTPUT, NO_AFFINITY, NO_STRUCTURE],
    "output space": [NO_AFFINITY, NO_STRUCTURE],
    "affinity space": [NO_OUTPUT, NO_STRUCTURE],
    "both spaces": [NO_STRUCTURE],
    "both spaces, DENet always teaches": [NO_STRUCTURE, "roles=denet"],
    "all, with structure prediction": [],
    "all, no uncertainty": ["uncertainty=false"],
    "all, soft roles": ["roles=soft"],
    "all, one role an image": ["roles=image"],
}
BEFORE = "estimator_start="  # and the file, once it is made
STRONG = ["output_weight=5", "estimation_weight=0", NO_AFFINITY, NO_STRUCTURE]  # fifty times as much as the recipe has
CRISP = ["guided_teacher=crisp", *STRONG]
TRUTH = ["guided_teacher=truth", "roles=denet", *STRONG]
FEW = "distinct=10"
AGAIN = {
    "DSRNet alone": ALONE,
    "all, DENet agrees": [AGREES],
    "all, DENet agrees, trained before": [AGREES, BEFORE],
    "all, the same DENet, always teaching": [AGREES, BEFORE, "roles=denet"],
    "Crisp teaches where it is nearer": CRISP,
    "Crisp always teaches": [*CRISP, "roles=denet"],
    "the truth teaches with that weight": TRUTH,
    "40 pictures: DSRNet alone": [*ALONE, FEW],
    "40 pictures: all, DENet trained before": [AGREES, BEFORE, FEW],
    "40 pictures: Crisp always teaches": [*CRISP, "roles=denet", FEW],
    "40 pictures: the truth teaches with that weight": [*TRUTH, FEW],
}
COLUMNS = {f"share_{x}": x for x in ("x2", "x4", "x8", "x16")} | {"estimation_share": "DENet's error"}
QUICK = [
    "network.stages=1",
    "network.width=16",
    "estimator.widths=[8]",
    "estimator.blocks=[1]",
    "patches=[[1, 48]]",
]


def main() -> None:
    """Train the rows asked for with the seeds asked for, and print the tables of all that are done."""
    parser = arguments(__doc__, "runs/ctkt-ablation", 1000, ROWS | AGAIN)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--side", type=int, default=160, help="of the patches, four a step")
    asked = parser.parse_args()
    words = [f"patches=[[4,{asked.side}]]", "ema=0.99", "sensors.in_levels=0", "network.levels=false"]
    folder, rows, seeds = asked.folder / f"{asked.steps}-steps-{asked.side}", asked.rows, asked.seeds.split(",")
    if asked.quick:
        rows, seeds, asked.steps = ["all, DENet agrees, trained before"], ["0"], 2
        folder, words = asked.folder / "quick", [*words, *QUICK]
    for seed in () if asked.done else seeds:
        for row in rows or ROWS | AGAIN:
            own = (ROWS | AGAIN)[row]
            if BEFORE in own:
                before = taught(folder, [*words, *lasting(5 * asked.steps)], asked.scenes_folder)
                own = [BEFORE + str(before) if word == BEFORE else word for word in own]
            where = place(folder, row, seed)
            trained("ctkt", [*words, *lasting(asked.steps), f"seed={seed}", *own], where, asked.scenes_folder)
    head = f"{asked.steps} steps of 4 squares of {asked.side}, RMSE as a share of bicubic's"
    for mark, table_rows in (("ablation", ROWS), ("again", AGAIN)):
        done = {row: [last_validation(place(folder, row, seed)) for seed in seeds] for row in table_rows}
        whole = all(run for runs in done.values() for run in runs)  # a part of a table replaces no whole one
        show(table(head, done, COLUMNS), asked.out if whole else None, mark)


def lasting(steps: int) -> list[str]:
    """The words of a run of so many steps."""
    return [f"steps={steps}", f"validate_every={steps}", f"warmup={steps // 20}", f"ramp={steps // 3}"]


def taught(folder: Path, words: list[str], scenes_folder: Path | None) -> Path:
    """DENet's weights after a run beside a DSRNet with which it exchanges nothing."""
    where = place(folder, "DENet before", 100)
    trained("ctkt", [*words, "seed=100", AGREES, NO_OUTPUT, NO_AFFINITY, NO_STRUCTURE], where, scenes_folder)
    return where / ESTIMATOR


if __name__ == "__main__":
    main()
