"""What a small NAIMA gains from semantic tokens, the paper's claim, and from each idea of ours.

    crispdepth train naima-tokens
    python examples/ablate_naima.py runs/naima-ablation [-o docs/naima.md] [--tokens FILE]
        [--steps 500] [--rows "tokens" "no tokens"] [--seeds 0,1,2] [--done] [--scenes-folder FOLDER] [--quick]

Trains every row with every seed on made-up scenes at x8, without noise or holes as published, alike but for the row's
own change, and prints RMSE as a share of bicubic's on validation scenes, mean ± standard deviation over the seeds: a
difference smaller than that is none. Without tokens, alpha stays 0: the same network, the same first weights and
examples, but nothing is heard.
Runs that are done are not trained again, so a stopped ablation goes on, and processes may share the rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from crispdepth.training.run import last_validation

sys.path.insert(0, str(Path(__file__).parent))

from ablation import arguments, place, show, table, trained

ROWS = {
    "tokens": [],
    "no tokens": ["blind=true"],
    "tokens by attention alone": ["network.own=false"],
    "no learnt temperature": ["network.temperature=false"],
    "tokens without a border": ["network.padded=false"],
    "phases as angles": ["network.circle=false"],
    "no RGB features in the upsampler": ["network.detail=false"],
    "low map not in the RGB branch": ["network.enlarged=false"],
    "torch's own first weights": ["calm=false"],
}
COLUMNS = {"share_x8": "x8"}
EASY = 10**9  # a ramp so long that every example is clean and x8
QUICK = ["network.width=4", "patches=[[1, 48]]", "distinct=2", "steps=2", "validate_every=2"]


def main() -> None:
    """Train the rows asked for with the seeds asked for, and print the table of all that are done."""
    parser = arguments(__doc__, "runs/naima-ablation", 500, ROWS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tokens", default="naima-small", help="a file of crispdepth train naima-tokens, or a model")
    asked = parser.parse_args()
    words = [f"steps={asked.steps}", f"distinct={asked.steps // 2}", f"validate_every={asked.steps}"]
    words += [f"warmup={asked.steps // 6}", f"ramp={EASY}", "patches=[[4, 96]]", "ema=0.99", f"tokens={asked.tokens}"]
    folder, rows, seeds = asked.folder / f"{asked.steps}-steps", asked.rows or ROWS, asked.seeds.split(",")
    if asked.quick:
        rows, seeds, folder = ["no tokens"], ["0"], asked.folder / "quick"
        words = [*words, *QUICK, "tokens="]
    for seed in () if asked.done else seeds:
        for row in rows:
            trained("naima-small", [*words, f"seed={seed}", *ROWS[row]], place(folder, row, seed), asked.scenes_folder)
    done = {row: [last_validation(place(folder, row, seed)) for seed in seeds] for row in ROWS}
    show(table(f"{asked.steps} steps, RMSE as a share of bicubic's", done, COLUMNS), asked.out)


if __name__ == "__main__":
    main()
