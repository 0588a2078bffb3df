"""The stage `questions`: reads a source into the store, where it is never in memory as a whole."""

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
from lr_exp.data.questions import StoredQuestions, write_questions
from lr_exp.data.sources import GENERATED, iterate_questions, local_digests, short_reason
from lr_exp.errors import UserError
from lr_exp.store import Recipe, Store

log = logging.getLogger(__name__)

VERSION = 2

_SETTINGS = ("name", "format", "configs", "split", "max_questions")  # that determine what is read
_GENERATOR_SETTINGS = ("count", "seed", "operations", "operands", "depth")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def streamed_questions(
    data: DataSettings, *, hub_root: str | None, store: Store
) -> StoredQuestions:
    """The first `max_questions` of a source, or all of them, written to the store if necessary."""
    settings = {name: value for name, value in asdict(data).items() if name in _SETTINGS}
    settings |= {"readers": READERS_VERSION}
    inputs: dict[str, Any] = {}
    if data.format in GENERATED:
        settings |= {name: getattr(data, name) for name in _GENERATOR_SETTINGS}
    else:
        files = distributed.run_on_all_ranks(lambda: local_digests(data, hub_root=hub_root))
        distributed.check_same({"data": files})
        if files is None:  # from the hub: read this commit even if a new one is pushed meanwhile
            data = replace(data, revision=distributed.run_on_rank0(lambda: _commit(data)))
            inputs = {"path": data.path, "commit": data.revision}
        else:
            inputs = {"files": files}

    def build(folder: Path) -> dict[str, Any]:
        log.info("data=%s: reading the questions into the store", data.name)
        # An unfinished stream keeps files and the hub client's threads open.
        with closing(iterate_questions(data, hub_root=hub_root, streaming=True)) as questions:
            return write_questions(islice(questions, data.max_questions), folder)

    artifact = store.make(Recipe("questions", VERSION, inputs, settings), build)
    return StoredQuestions(artifact.folder, artifact.facts)


def _commit(data: DataSettings) -> str | None:
    """The commit that a hub data set's revision points to now."""
    if data.revision and _COMMIT.fullmatch(data.revision):
        return data.revision
    from huggingface_hub import HfApi  # takes a second: not at start-up

    try:
        return HfApi().dataset_info(data.path or "", revision=data.revision).sha
    # The client and httpx raise errors without a common base class.
    except Exception as error:
        raise UserError(
            f"data.path={data.path}: cannot get the current commit from the hub "
            f"({short_reason(error, 200)}). Connect to the hub, check data.path, set hub_root to a "
            "folder that holds the data set, or set data.revision to a commit that is already in "
            "the store."
        ) from error
