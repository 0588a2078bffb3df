"""Interface of inference engines: token ids in, token ids out.

Only the expert's ids come from an engine. Both models score them here, so supervision does not
depend on the engine's arithmetic.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.models.loading import LanguageModel
from lr_exp.store import digest, file_digest, write_atomically

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One prompt to continue; engines receive all settings, so their defaults do not matter."""

    prompt: Sequence[int]  # token ids
    max_new_tokens: int  # including the stop token
    seed: int = 0  # in [0, 2**31)
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0


# Returns the continuations in the order of the requests.
Generate = Callable[[Sequence[Request]], list[Decoded]]


class Engine(Protocol):
    """Continues prompts in place of the expert."""

    @property
    def identity(self) -> dict[str, Any]:
        """Facts on which answers may depend, such as versions; part of their address in the store.

        Raises UnreachableError: only the server has them, and it does not respond.
        """
        ...

    def open(
        self, expert: LanguageModel, adapter: Path | None = None
    ) -> AbstractContextManager[Generate]:
        """Prepares the engine to answer as the expert, optionally with a LoRA adapter's folder.

        The expert's own weights are not used.

        Raises UserError: the engine's model has another vocabulary, or it takes no adapters.
        """
        ...

    def close(self) -> None:
        """Frees memory and connections; the engine can be opened again."""
        ...


class UnreachableError(UserError):
    """The server does not respond."""


def adapter_name(adapter: Path) -> str:
    """A name derived from the adapter's contents, so that an engine cannot mix up two adapters."""
    files = {path.name: file_digest(path) for path in sorted(adapter.iterdir()) if path.is_file()}
    return f"lr_exp-{digest(files)[:16]}"


def truncated(token_ids: Sequence[int], stop_ids: Sequence[int], max_new_tokens: int) -> Decoded:
    """The answer up to its first stop token or the limit."""
    for index, token_id in enumerate(token_ids[:max_new_tokens]):
        if token_id in stop_ids:
            return Decoded(list(token_ids[: index + 1]), finished=True)
    return Decoded(list(token_ids[:max_new_tokens]), finished=False)


def last_known_identity(engine: Engine, path: Path) -> dict[str, Any]:
    """The engine's identity, saved to `path`; the saved one after the server was stopped."""
    try:
        identity = engine.identity
    except UnreachableError as error:
        try:
            identity = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            raise error from None
        log.warning("%s Using its last known identity to look up answers in the store.", error)
        return identity
    with suppress(OSError):  # the store may be read-only
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(identity, sort_keys=True) + "\n")
    return identity
