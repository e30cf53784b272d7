"""two_processes.py FOLDER DEVICES [NODES]: a tiny recipe trained on a CPU in so many processes; keeps all gradients."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch

from crispdepth.models.crisp import CrispConfig
from crispdepth.training import run, task
from crispdepth.training.recipes import CrispRecipe
from crispdepth.training.supervised import CrispTask

STEPS = 3
RECIPE = CrispRecipe(
    network=CrispConfig(1, 1, 8, widths=(8, 8, 8, 8), encoder=(0, 0, 0), middle=1, context=0, decoder=(0, 0)),
    patches=((1, 48), (1, 64)),
    steps=STEPS,
    learning_rate=0.01,
    warmup=1,
    validate_every=STEPS,
    checkpoint_every=STEPS,
)


def gradients(self: Any, _: Any) -> None:
    """Before each step, averaged over the processes by then; 0 of what the step's scale did not use."""
    if self.trainer.is_global_zero:
        weights = dict(self.network.named_parameters())
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in weights.items()}
        torch.save(found, self.folder / f"gradients-{self.global_step}.pt")


def main(folder: Path, devices: int, nodes: int = 1, examples_a_step: int = 2) -> None:
    """``examples_a_step`` are spread over the processes; what is left of them comes one after the other."""
    task.VALIDATION_SCENES, task.VALIDATION_SIZE = 1, (96, 128)
    task._validation_scenes.cache_clear()
    CrispTask.on_before_optimizer_step = gradients  # type: ignore[method-assign,assignment]
    run.pl.Trainer = functools.partial(run.pl.Trainer, accumulate_grad_batches=examples_a_step // (devices * nodes))  # type: ignore[misc,assignment]
    run.train(RECIPE, folder, "cpu", devices, nodes, workers=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
