"""Which ideas of Crisp pay: small networks trained alike on a short budget, one idea changed in each.

    python examples/ablate.py runs/ablation --steps 1000 [--rows "full,no phase"] [--scenes-folder FOLDER] [--quick]

Trains crisp-tiny on made-up scenes on the CPU and prints RMSE as a share of bicubic's on validation scenes.
Rows that are done are not trained again, so a stopped run goes on, and processes may share the rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crispdepth.training.examples import Scenes
from crispdepth.training.recipes import changed, find
from crispdepth.training.run import last_validation, train

ROWS = {
    "full": [],
    "no phase": ["network.phase=false"],
    "no gates by scale": ["network.gates=false"],
    "no contrast (plain residual)": ["network.contrast=false"],
    "no consistency": ["network.rounds=0"],
    "one round of consistency": ["network.rounds=1"],
    "consistency that moves no edges": ["network.edges=false"],
    "no large kernels": ["network.context=0"],
    "with kernel mixture": ["network.kernel=true"],
    "loss without RMSE": ["root_square_weight=0"],
    "loss not relative to bicubic's": ["relative=false"],
    "no easy start": ["ramp=0"],
}
COLUMNS = ("share_x4", "share_x8", "share_x16")


def main() -> None:
    """Train the rows asked for and print the table of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/ablation"))
    parser.add_argument("--quick", action="store_true", help="two steps of one row, to see that it runs")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--scenes-folder", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.rows, asked.folder = 2, "full", asked.folder / "quick"
    base = [f"steps={asked.steps}", f"validate_every={asked.steps}", "warmup=50", "ema=0.99", "ramp=300"]
    for row in asked.rows.split(","):
        folder = asked.folder / row.replace(" ", "-")
        if not last_validation(folder):
            recipe = changed(find("crisp-tiny"), base + ROWS[row])
            train(recipe, folder, accelerator="cpu", source=Scenes(asked.scenes_folder))
    print(f"| {asked.steps} steps of crisp-tiny | x4 | x8 | x16 |\n|---|---|---|---|")
    for row in ROWS:
        if last := last_validation(asked.folder / row.replace(" ", "-")):
            print(f"| {row} | " + " | ".join(f"{float(last[c]):.3f}" for c in COLUMNS) + " |")


if __name__ == "__main__":
    main()
