"""Weights on the Hugging Face hub: hf:owner/name fetched and kept, one's own pushed; safetensors only."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from crispdepth.atomic import atomic, check_output, shown
from crispdepth.types import InputError

try:
    from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
except ImportError as error:
    raise InputError("hf: needs huggingface_hub: pip install 'crispdepth[hub]'") from error

PREFIX = "hf:"
FILE = "model.safetensors"  # what push writes, and what is fetched unless the name says another
MAX_BYTES = 2**31  # of a file; known from its headers before any of it is fetched
TIMEOUT_S = 10.0
FRONT = "---\nlibrary_name: crispdepth\npipeline_tag: depth-estimation\ntags: [depth-super-resolution]\n---\n"
_WORD = r"\w[\w.-]*"
_NAME = re.compile(rf"({_WORD}/{_WORD})(?:/((?:{_WORD}/)*{_WORD}\.safetensors))?(?:@(\w[\w./-]*))?")


class Place(NamedTuple):
    """A file on the hub: its repository (``owner/name``), its path there, and a branch, tag or commit."""

    repo: str
    file: str = FILE
    revision: str | None = None


def place(name: str) -> Place:
    """``owner/name``, ``owner/name/FILE.safetensors``, either with ``@VERSION``; ``hf:`` before it may be left out.

    Raises InputError for anything else.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise InputError(
            f"{name!r} is no name on the hub: write hf:owner/name, hf:owner/name@VERSION or "
            "hf:owner/name/FILE.safetensors (other files are never fetched)"
        )
    return Place(found[1], found[2] or FILE, found[3])


def fetched(name: str) -> Path:
    """The file called ``name`` (see ``place``), fetched unless it is kept from before; its path on this machine.

    Its size is asked first: above MAX_BYTES, or unknown, nothing is fetched. Where the hub cannot be reached, the
    kept file is taken. Raises InputError when there is no such file, or none was kept.
    """
    wanted, api = place(name), _api()
    url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision, endpoint=api.endpoint)
    with _explained(wanted):
        try:
            size = api.get_hf_file_metadata(url=url, timeout=TIMEOUT_S).size
        except (EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except Exception:
            kept = try_to_load_from_cache(wanted.repo, wanted.file, revision=wanted.revision)
            if isinstance(kept, str):
                return Path(kept)
            raise
        if size is None or size > MAX_BYTES:
            raise InputError(f"{name} is {size or 'of unknown'} bytes: {MAX_BYTES:,} at most are fetched")
        return Path(api.hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision))


def pull(name: str, out: Path) -> list[str]:
    """Copy what ``fetched`` finds to ``out`` (.safetensors). Returns lines that say what was done."""
    check_output(out, (), (".safetensors",))
    found = fetched(name)
    with atomic(out) as temporary:
        shutil.copyfile(found, temporary)
    return [f"wrote    {out} ({out.stat().st_size / 1e6:.1f} MB)", f"card     {_api().endpoint}/{place(name).repo}"]


def push(weights: Path, name: str, card: Path | None = None, private: bool = False) -> list[str]:
    """Upload ``weights`` (.safetensors, checked by the caller) and their ``card`` to the repository ``owner/name``.

    ``card``: Markdown; by default the ``.md`` beside the weights. The repository is made if it is missing.
    Raises InputError without a card, and for whatever the hub refuses. Returns lines that say what was done.
    """
    wanted = place(name)
    if wanted != Place(wanted.repo):
        raise InputError(f"push goes to a repository, not to a file or version: write {wanted.repo}")
    card = card or weights.with_suffix(".md")
    if weights.suffix != ".safetensors" or not weights.is_file():
        raise InputError(f"{weights} is no .safetensors file: nothing else is uploaded")
    if not card.is_file():
        raise InputError(
            f"{card} does not exist: say in it (or in --card FILE) what the weights learnt from, and terms"
        )
    text = card.read_text(encoding="utf-8", errors="replace")
    files: dict[str, Path | bytes] = {
        FILE: weights,
        "README.md": (text if text.startswith("---\n") else FRONT + text).encode(),
    }
    api = _api()
    with _explained(wanted):
        api.create_repo(wanted.repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        commit = api.create_commit(wanted.repo, operations, commit_message="Weights for crispdepth")
    return [f"pushed   {commit.commit_url}", f"use it   crispdepth predict --model {PREFIX}{wanted.repo} …"]


def _api() -> HfApi:
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="crispdepth")


@contextmanager
def _explained(wanted: Place) -> Iterator[None]:
    """What the hub's library raises, as one line that names the cure."""
    version = wanted.revision or "main"
    try:
        yield
    except InputError:
        raise
    except GatedRepoError as error:
        raise InputError(f"{wanted.repo} is gated: ask for access on its page, then hf auth login") from error
    except RepositoryNotFoundError as error:
        why = "check the name; if it is private, hf auth login"
        raise InputError(f"{wanted.repo} is not on the hub: {why}") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{wanted.repo} has no version {version}: check what follows the @") from error
    except EntryNotFoundError as error:
        cure = "name the file: hf:owner/name/FILE.safetensors"
        raise InputError(f"{wanted.repo}@{version} has no {wanted.file}, or it was never fetched: {cure}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        cure = "hf auth login, with a token that may write" if status in (401, 403) else "try again later"
        raise InputError(f"the hub answered {status} for {wanted.repo}: {cure}") from error
    except Exception as error:  # of its HTTP library, which is another in each version
        words = " ".join(shown(error).split())[:160]
        raise InputError(f"the hub cannot be reached ({words}): check the network and HF_ENDPOINT") from error
