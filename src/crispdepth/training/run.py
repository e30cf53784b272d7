"""train: one recipe to one folder of weights, logs and pictures; resumes where it was stopped."""

from __future__ import annotations

import csv
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from crispdepth.atomic import alone, check_folder
from crispdepth.data.sets import find
from crispdepth.training.distilled import CtktTask
from crispdepth.training.examples import Batch, Scenes, Source, Stream
from crispdepth.training.recipes import CrispRecipe, CtktRecipe, NaimaRecipe, Recipe, SemiRecipe, TokensRecipe
from crispdepth.training.semi import SemiTask
from crispdepth.training.supervised import CrispTask, NaimaTask
from crispdepth.training.task import REPORTED, WEIGHTS, Task, write_recipe
from crispdepth.training.tokens import TokensTask
from crispdepth.types import InputError

TASKS: dict[type[Recipe], Callable[..., Task]] = {
    CrispRecipe: CrispTask,
    CtktRecipe: CtktTask,
    NaimaRecipe: NaimaTask,
    SemiRecipe: SemiTask,
    TokensRecipe: TokensTask,
}


def train(
    recipe: Recipe,
    folder: Path,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    source: Source | None = None,
    report: Path | None = None,
    workers: int = 1,
) -> Path:
    """Train into ``folder`` and return the path of ``weights.safetensors`` there.

    Writes recipe.json, metrics/, pictures/ and a checkpoint every ``recipe.checkpoint_every`` steps; called
    again with the same folder it goes on from the newest checkpoint. ``accelerator``, ``devices``, ``nodes``
    are Lightning's own. ``source``: where pictures come from; by default scenes are made. ``report``: a folder with
    middlebury/ and lu/ in it, whose figures are logged and decide nothing. ``workers``: processes that make
    examples on a CPU. Raises InputError when the folder holds weights of another recipe or other data, when another
    process trains there, and for what cannot be read; KeyboardInterrupt, whose text says where it goes on, for Ctrl-C
    and SIGTERM.
    """
    check_folder(folder)
    if report is not None:
        for name in REPORTED:
            find(name, report / name)  # said now, not at the first validation
    with alone(folder / "train.lock") if _is_first() else nullcontext():
        return _train(recipe, folder, (accelerator, devices, nodes), source or Scenes(), report, workers)


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """Whether ``folder`` holds all steps: then ``train`` learns nothing more."""
    return _step_of(_newest_checkpoint(folder)) >= recipe.steps


def _is_first() -> bool:
    """Whether this is the first process of all: on each machine one has rank 0 until Lightning has counted them."""
    return rank_zero_only.rank == 0 and os.environ.get("NODE_RANK", "0") == "0"  # type: ignore[attr-defined]


def _train(
    recipe: Recipe, folder: Path, where: tuple[str, int, int], source: Source, report: Path | None, workers: int
) -> Path:
    _check_same_recipe(recipe, source.says, folder)
    torch.set_float32_matmul_precision("high")
    pl.seed_everything(recipe.seed, verbose=False)
    newest = _newest_checkpoint(folder)
    task = TASKS[type(recipe)](recipe, folder, source, report)
    if newest is not None and is_finished(recipe, folder):  # Lightning would hand out the last step
        task.load_state_dict(torch.load(newest, map_location="cpu", weights_only=True)["state_dict"])  # the average
        if _is_first():
            task.save()
        return folder / WEIGHTS
    with _quiet():
        trainer = _trainer(recipe, folder, *where, _step_of(newest))
        if _is_first():  # who else may be ahead of the folder itself
            write_recipe(recipe, source.says, folder)  # last: what was refused so far leaves nothing behind
        try:
            trainer.fit(task, datamodule=_Examples(task, _step_of(newest), workers), ckpt_path=newest)
        except InputError as error:  # from a process that makes examples torch hands on the whole traceback
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None
        except BaseException as error:  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            kept = _step_of(_newest_checkpoint(folder))
            cure = f"run the same command again to go on from step {kept} (checkpoint_every={recipe.checkpoint_every})"
            if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
                raise InputError(f"the process that makes examples was killed (for want of memory?): {cure}") from error
            if not (trainer.received_sigterm or isinstance(error.__context__, KeyboardInterrupt)):
                raise
            raise KeyboardInterrupt(f"stopped at step {trainer.global_step}: {cure}") from None
    if trainer.is_global_zero:
        task.save()
    return folder / WEIGHTS


class _Examples(pl.LightningDataModule):
    """The stream of this process, made when Lightning knows which of how many processes this is."""

    def __init__(self, task: Task, start: int, workers: int) -> None:
        super().__init__()
        self.task = task
        self.start = start
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        by_number = self.task.draws_alone or not isinstance(trainer.accelerator, CPUAccelerator)
        rank, world = trainer.global_rank, trainer.world_size
        stream = Stream(self.task.recipe, self.start, by_number, self.task.source, rank, world, self.task.make)
        workers = 0 if by_number else self.workers
        return DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)

    def val_dataloader(self) -> list[int]:
        return [0]


class _Steps(RichProgressBar):
    """Lightning's bar, counting the steps of the whole run: its own counts epochs, and a stream has none."""

    @property
    def total_train_batches(self) -> int:
        return self.trainer.max_steps

    def _get_train_description(self, current_epoch: int) -> str:
        return "step"


def last_validation(folder: Path) -> dict[str, str]:
    """The figures of the last validation of the run in ``folder``, by name; empty when there was none."""
    rows = [
        row
        for path in sorted(folder.glob("metrics/*/metrics.csv"))
        for row in csv.DictReader(path.read_text().splitlines())
    ]
    validations = [row for row in rows if row.get("share_x8") or row.get("absrel")]  # a step's row has neither
    return validations[-1] if validations else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice, which does not fit a stream made on the spot."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _trainer(recipe: Recipe, folder: Path, accelerator: str, devices: int, nodes: int, start: int) -> pl.Trainer:
    """Raises InputError for words that Lightning does not take."""
    try:
        return _made_trainer(recipe, folder, accelerator, devices, nodes, start)
    except (ValueError, ModuleNotFoundError, MisconfigurationException) as error:
        raise InputError(f"Lightning takes no such training: {str(error).splitlines()[0]}") from error


def _made_trainer(recipe: Recipe, folder: Path, accelerator: str, devices: int, nodes: int, start: int) -> pl.Trainer:
    return pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=recipe.precision,  # type: ignore[arg-type]
        max_steps=recipe.steps,
        gradient_clip_val=recipe.clip,
        val_check_interval=min(recipe.validate_every, recipe.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
        logger=CSVLogger(folder, name="metrics", version=f"from-{start:06d}"),
        callbacks=[
            _Steps(),
            EMAWeightAveraging(decay=recipe.ema),
            ModelCheckpoint(
                folder / "checkpoints", filename="{step}", every_n_train_steps=recipe.checkpoint_every, save_top_k=1
            ),
        ],
        enable_model_summary=False,
    )


def _newest_checkpoint(folder: Path) -> Path | None:
    found = list((folder / "checkpoints").glob("step=*.ckpt"))
    return max(found, key=_step_of, default=None)


def _step_of(path: Path | None) -> int:
    return 0 if path is None else int(path.stem.partition("=")[2].partition("-")[0])


def _check_same_recipe(recipe: Recipe, data: str, folder: Path) -> None:
    """What was learnt belongs to one recipe and one data set: going on with another would be neither."""
    path = folder / "recipe.json"
    learnt = _newest_checkpoint(folder) or (folder / WEIGHTS).is_file()
    if not learnt or not path.is_file():
        return
    asked = _flat({"data": data} | json.loads(json.dumps(asdict(recipe))))
    had = _flat({"data": data} | json.loads(path.read_text()))  # earlier versions did not write it
    if had == asked:
        return
    if had["data"] != data:
        raise InputError(
            f"{folder} holds a run that learnt from other data ({had['data']}, not {data}): name a new folder"
        )
    other = next((f" with {key}={json.dumps(had[key])}" for key in had if had[key] != asked.get(key)), "")
    raise InputError(f"{folder} holds a run of another recipe{other}: name a new folder, or delete this one")


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's fields by the words that change them."""
    parts = [_flat(x, f"{prefix}{k}.") if isinstance(x, dict) else {f"{prefix}{k}": x} for k, x in fields.items()]
    return {key: x for part in parts for key, x in part.items()}
