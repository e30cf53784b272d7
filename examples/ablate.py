"""Which ideas of Crisp pay: the network trained alike on a short budget, one idea changed in each row.

    python examples/ablate.py runs/ablation [-o docs/crisp.md] [--steps 300] [--rows "no phase"]
        [--scenes-folder FOLDER] [--quick]

Trains crisp from its usual start, the DSRNets of ctkt, on made-up scenes on the CPU, and prints RMSE as a share of
bicubic's on validation scenes. Every row starts from the same seed and sees the same examples; the last row is the
first one again from another seed: a difference as small as that is none. Runs that are done are not trained again, so a
stopped ablation goes on, and processes may share the rows.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from crispdepth.bench.report import write_between
from crispdepth.training.examples import Scenes
from crispdepth.training.recipes import changed, find
from crispdepth.training.run import last_validation, train

ROWS = {
    "full": [],
    "no colours": ["network.colours=false"],
    "DSRNets from nothing": ["start="],
    "no consistency at the end": ["network.rounds=0"],
    "consistency that moves no edges": ["network.edges=false"],
    "no gates by scale": ["network.gates=false"],
    "no phase": ["network.phase=false"],
    "no large kernels": ["network.context=0"],
    "loss without RMSE": ["root_square_weight=0"],
    "loss not relative to bicubic's": ["relative=false"],
    "full, another seed": ["seed=1"],
}
COLUMNS = ("share_x4", "share_x8", "share_x16")


def main() -> None:
    """Train the rows asked for and print the table of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/ablation"))
    parser.add_argument("--quick", action="store_true", help="two steps of one row, to see that it runs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--scenes-folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, help="a page with <!-- ablation --> marks, for the table")
    asked = parser.parse_args()
    words = [f"steps={asked.steps}", f"validate_every={asked.steps}", "patches=[[4,160]]", "ema=0.99"]
    words += [f"warmup={asked.steps // 20}", "ramp=1"]
    if asked.quick:
        asked.rows, asked.folder = ["full"], asked.folder / "quick"
        words += ["steps=2", "validate_every=2"]
    for row in asked.rows:
        folder = run_folder(asked.folder, row)
        if not last_validation(folder):
            train(changed(find("crisp"), [*words, *ROWS[row]]), folder, "cpu", source=Scenes(asked.scenes_folder))
    lines = [f"| {asked.steps} steps, RMSE as a share of bicubic's | x4 | x8 | x16 |", "|---|---|---|---|"]
    for row in ROWS:
        if last := last_validation(run_folder(asked.folder, row)):
            lines.append(f"| {row} | " + " | ".join(f"{float(last[c]):.3f}" for c in COLUMNS) + " |")
    print("\n".join(lines))
    if asked.out:
        write_between(asked.out, "ablation", "\n".join(lines))


def run_folder(folder: Path, row: str) -> Path:
    """Where the run of one row is."""
    return folder / re.sub(r"[^a-z]+", "-", row)


if __name__ == "__main__":
    main()
