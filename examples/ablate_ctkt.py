"""What depth super-resolution gains from a network that sees colours: CTKT's parts switched on one by one.

    python examples/ablate_ctkt.py runs/ctkt-ablation [-o docs/ctkt.md] [--steps 1000] [--side 160]
        [--rows "DSRNet alone"] [--seeds 0,1,2] [--scenes-folder FOLDER] [--quick]

Trains every row with every seed on made-up scenes on the CPU, alike but for the row's own change, and prints RMSE as
a share of bicubic's on validation scenes, mean ± standard deviation over the seeds: a difference smaller than that is
none. A seed means the same first weights of DSRNet and the same examples in each row. Without interaction the two
networks share nothing but the clipping of their gradients, so the first two rows show what chance does.
Runs that are done are not trained again, so a stopped ablation goes on, and processes may share the rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, pstdev

from crispdepth.bench.report import write_between
from crispdepth.training.examples import Scenes
from crispdepth.training.recipes import changed, find
from crispdepth.training.run import last_validation, train

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
SCALES = ("x2", "x4", "x8", "x16")
QUICK = [
    "network.stages=1",
    "network.width=16",
    "estimator.widths=[8]",
    "estimator.blocks=[1]",
    "patches=[[1, 48]]",
]


def main() -> None:
    """Train the rows asked for with the seeds asked for, and print the table of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/ctkt-ablation"))
    parser.add_argument(
        "--quick", action="store_true", help="two steps of one row of tiny networks, to see that it runs"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--side", type=int, default=160, help="of the patches, four a step")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scenes-folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, help="a page with <!-- ablation --> marks, for the table")
    asked = parser.parse_args()
    words = [f"steps={asked.steps}", f"validate_every={asked.steps}", "ema=0.99"]
    words += [f"patches=[[4,{asked.side}]]", f"warmup={asked.steps // 20}", f"ramp={asked.steps // 3}"]
    if asked.quick:
        asked.rows, asked.seeds, asked.folder = ["all, with structure prediction"], "0", asked.folder / "quick"
        words += [*QUICK, "steps=2", "validate_every=2"]
    seeds = asked.seeds.split(",")
    for seed in seeds:
        for row in asked.rows:
            folder = run_folder(asked.folder, row, seed)
            if not last_validation(folder):
                recipe = changed(find("ctkt"), [*words, f"seed={seed}", *ROWS[row]])
                train(recipe, folder, accelerator="cpu", source=Scenes(asked.scenes_folder))
    lines = [
        f"| {asked.steps} steps, RMSE as a share of bicubic's | seeds | {' | '.join(SCALES)} | DENet's error |",
        "|---" * (len(SCALES) + 3) + "|",
    ]
    for row in ROWS:
        done = [last for seed in seeds if (last := last_validation(run_folder(asked.folder, row, seed)))]
        if done:
            cells = [cell(done, f"share_{scale}") for scale in SCALES] + [cell(done, "estimation_share")]
            lines.append(f"| {row} | {len(done)} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if asked.out:
        write_between(asked.out, "ablation", "\n".join(lines))


def run_folder(folder: Path, row: str, seed: str) -> Path:
    """Where the run of one row and seed is."""
    return folder / f"{row.replace(',', '').replace(' ', '-')}-{seed}"


def cell(done: list[dict[str, str]], name: str) -> str:
    """Mean and standard deviation of one figure over the runs that have it."""
    values = [float(last[name]) for last in done if last.get(name)]
    return f"{mean(values):.3f} ± {pstdev(values):.3f}" if values else "none"


if __name__ == "__main__":
    main()
