"""Which ideas the trained Crisp lives on: each taken out of it, at once and after some steps to make up for the loss.

    python examples/ablate.py runs/ablation [-o docs/crisp.md] [--steps 150] [--rows "no phase"]
        [--scenes-folder FOLDER] [--quick]

Takes the weights of the package, leaves one idea out (its parameters too), and prints RMSE as a share of bicubic's on
validation scenes, before and after training on made-up scenes. All rows see the same examples; the last one
is the first again with other examples: a difference as small as that is none. Training
rows from the start on so short a budget tells nothing: the picture is learnt late. Runs that are done are not trained
again, so a stopped ablation goes on, and processes may share the rows; those of other weights lie elsewhere.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from crispdepth.models.catalog import WEIGHTS, load
from crispdepth.models.crisp import FOLD, Crisp
from crispdepth.training.run import last_validation

sys.path.insert(0, str(Path(__file__).parent))

from ablation import arguments, place, show, trained

COLOURS = 3 * FOLD**2  # the stem's first channels; its last six are the phase
ROWS: dict[str, dict[str, Any]] = {
    "full": {},
    "no colours": {"colours": False},
    "no consistency at the end": {"rounds": 0},
    "consistency that moves no edges": {"edges": False},
    "the picture guides the last step alone": {"early": False},
    "no gates by scale": {"gates": False},
    "no phase": {"phase": False},
    "no large kernels": {"context": 0},
    "full, other examples": {},
}
COLUMNS = ("share_x4", "share_x8", "share_x16")


def main() -> None:
    """Do the rows asked for and print the table of all that are done."""
    asked = arguments(__doc__, "runs/ablation", 150, ROWS).parse_args()
    name, rows = "crisp", asked.rows or ROWS
    if asked.quick:
        name, rows, asked.steps, asked.folder = "crisp-tiny", ["no phase"], 2, asked.folder / "quick"
    asked.folder /= hashlib.sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest()[:8]
    for row in () if asked.done else rows:
        start = place(asked.folder, row, 0).with_suffix(".safetensors")
        start.parent.mkdir(parents=True, exist_ok=True)
        without(load(name), ROWS[row]).save(start)
        words = ["patches=[[4,160]]", "ema=0.9", "warmup=10", "ramp=1", f"start={start}", f"seed={int('other' in row)}"]
        words += [f"network.{key}={str(value).lower()}" for key, value in ROWS[row].items()]
        for steps, rate in ((1, 1e-12), (asked.steps, 3e-4)):
            more = [f"steps={steps}", f"validate_every={steps}", f"learning_rate={rate}"]
            trained(name, [*words, *more], place(asked.folder, row, steps), asked.scenes_folder)
    heads = [f"{when}, {c.removeprefix('share_')}" for when in ("at once", f"{asked.steps} steps") for c in COLUMNS]
    lines = [f"| RMSE as a share of bicubic's | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in ROWS:
        found = [last_validation(place(asked.folder, row, steps)) for steps in (1, asked.steps)]
        if all(found):
            lines.append(f"| {row} | " + " | ".join(f"{float(last[c]):.3f}" for last in found for c in COLUMNS) + " |")
    show("\n".join(lines), asked.out)


def without(trained: Any, change: dict[str, Any]) -> Crisp:
    """The network with some fields of its config changed, and with what is left of its parameters."""
    config = replace(trained.config, **change)
    network, weights = Crisp(config), dict(trained.state_dict())
    stem = weights["stem.weight"]
    if not config.colours:
        stem = stem[:, COLOURS:]
    if not config.phase:
        stem = stem[:, :-6]
    weights["stem.weight"] = stem
    expected = network.state_dict()
    network.load_state_dict({key: weights[key] for key in expected})
    return network


if __name__ == "__main__":
    main()
