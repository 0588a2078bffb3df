"""Inference engines that answer in the expert's place: what they are asked, what they give back.

Knows token ids only. An engine gives the expert's ids and nothing else: both models score them
here, so that supervision never depends on the engine's arithmetic.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.models.loading import LanguageModel
from lr_exp.store import digest, file_digest, write_atomically

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. All of it is told to an engine: none of its defaults counts."""

    temperature: float = 0.0  # 0: the most probable token
    top_p: float = 1.0


@dataclass(frozen=True)
class Request:
    """One prompt to continue."""

    prompt: Sequence[int]
    room: int  # at most so many new ids, the stop token included
    seed: int  # of its draws; in [0, 2**31)


# Answers of the requests, in their order.
Generate = Callable[[Sequence[Request], Sampling], list[Decoded]]


class Engine(Protocol):
    """Something that continues token ids as the expert does."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the same request may be answered differently by: a part of an answer's address.

        Raises:
            Unreachable: it can be known from elsewhere only, and nobody answers there.
        """
        ...

    def open(
        self, expert: LanguageModel, adapter: Path | None = None
    ) -> AbstractContextManager[Generate]:
        """Makes the engine ready to answer as the expert, or as the expert with an adapter.

        Args:
            expert: its weights are not read (`models.without_weights`).
            adapter: the folder of a LoRA adapter.

        Raises:
            UserError: what the engine serves has another vocabulary, or it cannot take the adapter.
        """
        ...

    def close(self) -> None:
        """Gives its memory and its connections back; it can be opened again."""
        ...


class Unreachable(UserError):  # noqa: N818  said as one line, like any other UserError
    """Nobody answers where the engine is said to be."""


def adapter_name(adapter: Path) -> str:
    """An adapter's name, by its content: no engine answers with another one of the same name."""
    files = {path.name: file_digest(path) for path in sorted(adapter.iterdir()) if path.is_file()}
    return f"lr_exp-{digest(files)[:16]}"


def ended(token_ids: Sequence[int], stop_ids: Sequence[int], room: int) -> Decoded:
    """The answer up to its first stop token, or to the room that it had."""
    for place, token_id in enumerate(token_ids[:room]):
        if token_id in stop_ids:
            return Decoded(list(token_ids[: place + 1]), finished=True)
    return Decoded(list(token_ids[:room]), finished=False)


def remembered_identity(engine: Engine, place: Path) -> dict[str, Any]:
    """The engine's identity; what it said last time (`place`) where nobody answers now.

    So the answers that a store holds are found again after their server was stopped.
    """
    try:
        identity = engine.identity
    except Unreachable as error:
        try:
            identity = json.loads(place.read_text("utf-8"))
        except (OSError, ValueError):
            raise error from None
        log.warning("%s What it was last time is taken, for answers in the store.", error)
        return identity
    text = json.dumps(identity, sort_keys=True) + "\n"
    try:
        if not place.exists() or place.read_text("utf-8") != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, text)
    except OSError as error:  # a store that can only be read serves, too
        log.debug("%s was not written: %s", place, error)
    return identity
