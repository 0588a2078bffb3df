"""The stage `questions`: a source that is read once, as a stream, into shards in the store.

Knows sources and the store; knows nothing of models. What was read before is not read again, by
this run or another, and a source of millions never is in memory as a whole.
"""

import logging
import re
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.config.settings import DataSettings
from lr_exp.data.formats import READERS_VERSION
from lr_exp.data.questions import local_files, stream_questions
from lr_exp.data.stored_questions import SHARD, VERSION, StoredQuestions, write_questions
from lr_exp.errors import UserError
from lr_exp.store import Recipe, Store, file_digest

log = logging.getLogger(__name__)

_READ = ("name", "format", "configs", "split", "max_questions")  # what says what is read
_GENERATED = ("count", "seed")  # by the micro world
_COMMIT = re.compile(r"[0-9a-f]{40}")


def streamed_questions(
    data: DataSettings, *, hub_root: str | None, store: Store
) -> StoredQuestions:
    """The first `max_questions` of a source, or all, written to the store if they are not there.

    Raises:
        UserError: the source cannot be read; the message has the setting to change.
    """
    told = {name: value for name, value in asdict(data).items() if name in _READ}
    told |= {"readers": READERS_VERSION, "shard": SHARD}
    inputs: dict[str, Any] = {}
    if data.format == "micro":
        told |= {name: getattr(data, name) for name in _GENERATED}
    else:
        files = distributed.run_on_all_ranks(lambda: _digests(data, hub_root))
        distributed.check_same({"data": files})
        if files is None:  # the hub's: the commit that is read now, whatever comes meanwhile
            data = replace(data, revision=distributed.run_on_rank0(lambda: _commit(data)))
            inputs = {"path": data.path, "commit": data.revision}
        else:
            inputs = {"files": files}
    recipe = Recipe("questions", VERSION, inputs, told)

    def build(folder: Path) -> dict[str, Any]:
        log.info("data=%s: reading the questions into the store", data.name)
        # Closed here: what is left of a stream holds files, and the hub's client threads.
        with closing(stream_questions(data, hub_root=hub_root)) as questions:
            return write_questions(islice(questions, data.max_questions), folder)

    artifact = store.make(recipe, build)
    return StoredQuestions(artifact.folder, artifact.facts)


def _digests(data: DataSettings, hub_root: str | None) -> list[list[str]] | None:
    """Names and digests of the files that hold the source; None where the hub has it."""
    files = local_files(data, hub_root=hub_root)
    if files is None:
        return None
    place = Path(data.path or "").expanduser()
    if hub_root is not None and data.format not in ("jsonl", "parquet"):
        place = Path(hub_root).expanduser() / place
    return [[_name(path, place), file_digest(path)] for path in files]


def _name(path: Path, place: Path) -> str:
    """A file's name in its folder: where that lies does not matter."""
    return path.relative_to(place).as_posix() if path != place else path.name


def _commit(data: DataSettings) -> str:
    """The commit that a hub data set's revision is at now."""
    if data.revision and _COMMIT.fullmatch(data.revision):
        return data.revision
    from huggingface_hub import HfApi  # takes a second: not at start-up

    try:
        found = HfApi().dataset_info(data.path or "", revision=data.revision).sha
    # The client passes on what httpx raises: no common base.
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(
            f"data.path={data.path}: the hub does not tell which version it has ({reason}). "
            "Connect to the hub, check data.path, set hub_root to a folder that holds the data "
            "set, or data.revision to a commit that is in the store already."
        ) from error
    if found is None:
        raise UserError(
            f"data.path={data.path}: the hub names no commit; set data.revision to one."
        )
    return found
