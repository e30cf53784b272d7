"""What a small NAIMA gains from semantic tokens, the paper's claim, and from each idea of ours.

    crispdepth train naima-tokens
    python examples/ablate_naima.py runs/naima-ablation [-o docs/naima.md] [--tokens FILE]
        [--steps 600] [--rows "tokens" "no tokens"] [--seeds 0,1,2] [--done] [--scenes-folder FOLDER] [--quick]

Trains every row with every seed on made-up scenes on the CPU, alike but for the row's own change, and prints RMSE as
a share of bicubic's on validation scenes, mean ± standard deviation over the seeds: a difference smaller than that is
none. Without tokens, alpha stays 0: the same network, the same first weights and examples, but nothing is heard.
Runs that are done are not trained again, so a stopped ablation goes on, and processes may share the rows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crispdepth.bench.report import write_between
from crispdepth.training.examples import Scenes
from crispdepth.training.recipes import changed, find
from crispdepth.training.run import last_validation, train

sys.path.insert(0, str(Path(__file__).parent))

from ablate_ctkt import cell, run_folder

ROWS = {
    "tokens": [],
    "no tokens": ["blind=true"],
    "tokens by attention alone": ["network.own=false"],
    "no learnt temperature": ["network.temperature=false"],
    "tokens without a border": ["network.padded=false"],
    "phases as angles": ["network.circle=false"],
    "no RGB features in the upsampler": ["network.detail=false"],
}
SCALES = ("x4", "x8", "x16")
QUICK = ["network.width=4", "patches=[[1, 48]]", "distinct=2", "steps=2", "validate_every=2"]


def main() -> None:
    """Train the rows asked for with the seeds asked for, and print the table of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/naima-ablation"))
    parser.add_argument("--tokens", default="runs/naima-tokens/weights.safetensors", help="of crispdepth train")
    parser.add_argument("--quick", action="store_true", help="two steps of one row, random tokens: to see that it runs")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--done", action="store_true", help="train nothing, show what is done")
    parser.add_argument("--scenes-folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, help="a page with <!-- ablation --> marks, for the table")
    asked = parser.parse_args()
    words = [f"steps={asked.steps}", f"distinct={asked.steps}", f"validate_every={asked.steps}"]
    words += [f"warmup={asked.steps // 6}", "ema=0.99", f"tokens={asked.tokens}"]
    if asked.quick:
        asked.rows, asked.seeds, asked.folder = ["no tokens"], "0", asked.folder / "quick"
        words = [*words, *QUICK, "tokens="]
    seeds = asked.seeds.split(",")
    folder = asked.folder / f"{asked.steps}-steps"
    for seed in () if asked.done else seeds:
        for row in asked.rows:
            run = run_folder(folder, row, seed)
            if not last_validation(run):
                recipe = changed(find("naima-small"), [*words, f"seed={seed}", *ROWS[row]])
                train(recipe, run, accelerator="cpu", source=Scenes(asked.scenes_folder))
    heads = [f"{asked.steps} steps, RMSE as a share of bicubic's", "seeds", *SCALES]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in ROWS:
        done = [last for seed in seeds if (last := last_validation(run_folder(folder, row, seed)))]
        if done:
            lines.append(f"| {row} | {len(done)} | {' | '.join(cell(done, f'share_{scale}') for scale in SCALES)} |")
    print("\n".join(lines))
    if asked.out:
        write_between(asked.out, "ablation", "\n".join(lines))


if __name__ == "__main__":
    main()
