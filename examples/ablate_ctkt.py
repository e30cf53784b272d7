"""What depth super-resolution gains from a network that sees colours: CTKT's parts switched on one by one.

    python examples/ablate_ctkt.py runs/ctkt-ablation [-o docs/ctkt.md] [--steps 1000] [--side 160]
        [--rows "DSRNet alone"] [--seeds 0,1,2] [--done] [--scenes-folder FOLDER] [--quick]

Trains every row with every seed on made-up scenes, alike but for the row's own change, and prints RMSE as
a share of bicubic's on validation scenes, mean ± standard deviation over the seeds: a difference smaller than that is
none. A seed means the same first weights of DSRNet and the same examples in each row. Without interaction the two
networks share nothing but the clipping of their gradients, so the first two rows show what chance does.
Runs that are done are not trained again, so a stopped ablation goes on, and processes may share the rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from crispdepth.training.run import last_validation

sys.path.insert(0, str(Path(__file__).parent))

from ablation import arguments, place, show, table, trained

NO_OUTPUT, NO_AFFINITY, NO_STRUCTURE = "output_weight=0", "affinity_weight=0", "structure_weight=0"
ROWS = {
    "DSRNet alone": ["estimation_weight=0", NO_OUTPUT, NO_AFFINITY, NO_STRUCTURE],
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
COLUMNS = {f"share_{x}": x for x in ("x2", "x4", "x8", "x16")} | {"estimation_share": "DENet's error"}
QUICK = [
    "network.stages=1",
    "network.width=16",
    "estimator.widths=[8]",
    "estimator.blocks=[1]",
    "patches=[[1, 48]]",
]


def main() -> None:
    """Train the rows asked for with the seeds asked for, and print the table of all that are done."""
    parser = arguments(__doc__, "runs/ctkt-ablation", 1000, ROWS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--side", type=int, default=160, help="of the patches, four a step")
    asked = parser.parse_args()
    words = [f"steps={asked.steps}", f"validate_every={asked.steps}", "ema=0.99"]
    words += [f"patches=[[4,{asked.side}]]", f"warmup={asked.steps // 20}", f"ramp={asked.steps // 3}"]
    folder, rows, seeds = asked.folder / f"{asked.steps}-steps-{asked.side}", asked.rows or ROWS, asked.seeds.split(",")
    if asked.quick:
        rows, seeds, folder = ["all, with structure prediction"], ["0"], asked.folder / "quick"
        words += [*QUICK, "steps=2", "validate_every=2"]
    for seed in () if asked.done else seeds:
        for row in rows:
            trained("ctkt", [*words, f"seed={seed}", *ROWS[row]], place(folder, row, seed), asked.scenes_folder)
    done = {row: [last_validation(place(folder, row, seed)) for seed in seeds] for row in ROWS}
    head = f"{asked.steps} steps of 4 squares of {asked.side}, RMSE as a share of bicubic's"
    show(table(head, done, COLUMNS), asked.out)


if __name__ == "__main__":
    main()
