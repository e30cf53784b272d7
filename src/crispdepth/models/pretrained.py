"""Weights of others, loaded by Transformers, which fills what a checkpoint lacks with random numbers: refused here."""

from __future__ import annotations

from typing import Any

from crispdepth.types import InputError

UNUSED = ("mask_token", "swin.layernorm.")  # parameters of Transformers' backbones that no output depends on
ONLY_TO_TRAIN = ("auxiliary_head.", "criterion.", ".num_batches_tracked")  # no prediction depends on them either


def pretrained(kind: Any, name: str, may_lack: tuple[str, ...] = (), **words: Any) -> Any:
    """``kind.from_pretrained(name)``, a class of Transformers; ``words`` go there.

    Raises InputError when the checkpoint lacks weights, but for those no output depends on and those with a word of
    ``may_lack`` in their names.
    """
    network, report = kind.from_pretrained(name, output_loading_info=True, **words)
    harmless = (*UNUSED, *ONLY_TO_TRAIN, *may_lack)
    missing = sorted(key for key in report["missing_keys"] if not any(word in key for word in harmless))
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} weights of {type(network).__name__}, such as {missing[0]}: "
            "name a checkpoint that was saved for this task"
        )
    return network
