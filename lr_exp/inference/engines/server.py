"""The expert's answers from a server: vLLM, SGLang, llama.cpp, TGI, or any OpenAI-compatible one.

Knows requests in numbers, the check that the server's ids are the expert's, and where an answer
ends; how a server is spoken to is `dialects`' business. Nothing of a request is left to the
server's own settings. The server sees prompts, and nothing else leaves this machine.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from lr_exp import distributed
from lr_exp.config.settings import ServerSettings
from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate, Request, Sampling, adapter_name, ended
from lr_exp.inference.engines.dialects import (
    Completions,
    Dialect,
    LlamaCpp,
    PlainText,
    Reply,
    TextGenerationInference,
)
from lr_exp.inference.engines.http import Endpoint
from lr_exp.inference.engines.same_ids import check_ids, probe_ids
from lr_exp.models.loading import LanguageModel

log = logging.getLogger(__name__)

# What serves is asked for its version here, by the name that it owns its models by.
_VERSIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "vllm": (("/version", "version"),),
    "sglang": (("/server_info", "version"), ("/get_server_info", "version")),
    "llamacpp": (("/props", "build_info"),),
}
# Where it takes an adapter that was not there when it started, and lets it go again.
_ADAPTERS = {
    "vllm": ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    "sglang": ("/load_lora_adapter", "/unload_lora_adapter"),
}


class ServerEngine:
    """A server at `server.url`."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._endpoint: Endpoint | None = None

    def close(self) -> None:
        """Gives the connections back."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    @property
    def identity(self) -> dict[str, Any]:
        """See `Engine.identity`; asked for once."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Which server it is, what it serves, and its version."""
        endpoint = self._connected()
        cards = _cards(endpoint)
        tgi = endpoint.get("/info")
        if isinstance(tgi, dict) and {"model_id", "version"} <= tgi.keys():
            told = {key: tgi.get(key) for key in ("model_id", "model_sha", "version")}
            return {"engine": "server", "kind": "tgi", "model": tgi["model_id"], **told}
        model = self._settings.model or _only_model(endpoint.url, cards)
        kind = next((card.get("owned_by") for card in cards if card.get("id") == model), None)
        if kind is None and cards:  # llama.cpp answers to any name
            kind = cards[0].get("owned_by")
        version = None
        for path, key in _VERSIONS.get(str(kind), ()):
            told = endpoint.get(path)
            if isinstance(told, dict) and told.get(key) is not None:
                version = str(told[key])
                break
        return {"engine": "server", "kind": kind, "model": model, "version": version}

    @contextmanager
    def open(self, expert: LanguageModel, adapter: Path | None = None) -> Iterator[Generate]:
        """See `Engine.open`."""
        endpoint, model = self._connected(), str(self.identity["model"])
        dialect = self._dialect(expert)
        self._check(dialect, expert)
        unproven = 0
        with self._served(endpoint, model, adapter) as served:

            def generate(requests: Sequence[Request], sampling: Sampling) -> list[Decoded]:
                nonlocal unproven
                ask = partial(
                    _continued, dialect, self._connected(), served, expert.stop_ids, sampling
                )
                try:
                    answers = _at_once(ask, requests, self._settings.concurrency)
                except BaseException:
                    self.close()  # what waits to ask again gives up
                    raise
                unproven += sum(not proven for _, proven in answers)
                return [decoded for decoded, _ in answers]

            yield generate
        if unproven:
            log.warning(
                "server.url=%s: the ids of %d answers were read from their text and may not be "
                "those that the expert wrote (both models are compared at the same ones all "
                "the same). vLLM, SGLang and llama.cpp give ids.",
                endpoint.url,
                unproven,
            )

    def _connected(self) -> Endpoint:
        if self._endpoint is None:
            if self._settings.url is None:
                raise UserError("server.url is required: add server.url=http://HOST:PORT.")
            self._endpoint = Endpoint(
                self._settings.url,
                timeout=self._settings.timeout,
                attempts=self._settings.attempts,
                connections=self._settings.concurrency,
            )
        return self._endpoint

    def _dialect(self, expert: LanguageModel) -> Dialect:
        kind = self.identity["kind"]
        if kind == "llamacpp":
            return LlamaCpp()
        if kind == "tgi":
            return TextGenerationInference(expert.tokenizer)
        with_ids = Completions(expert.stop_ids)
        probe = probe_ids(expert.tokenizer)[:8]
        if with_ids.offered(self._connected(), self.identity["model"], probe):
            return with_ids
        log.warning(
            "server.url=%s takes and gives text, no token ids: an answer's ids are read from its "
            "text, and those that are not proven by it are counted.",
            self._connected().url,
        )
        return PlainText(expert.tokenizer, expert.stop_ids)

    def _check(self, dialect: Dialect, expert: LanguageModel) -> None:
        """Raises UserError where the server's ids are not the expert's."""
        endpoint, model = self._connected(), self.identity["model"]
        said = check_ids(expert.tokenizer, partial(dialect.detokenize, endpoint, model))
        if said is None and isinstance(dialect, Completions):
            log.warning(
                "server.url=%s does not say what its ids mean (no /detokenize): that it serves %s "
                "is taken on trust until its answers are scored.",
                endpoint.url,
                expert.name,
            )
        elif said:
            raise UserError(
                f"server.url={endpoint.url} serves {model!r}, whose ids are not those of the "
                f"expert {expert.name}: {said}. Serve the expert there, or choose the model that "
                "is served (server.model, expert.path)."
            )

    @contextmanager
    def _served(self, endpoint: Endpoint, model: str, adapter: Path | None) -> Iterator[str]:
        """The name of what answers: the model, or the model with an adapter that it is given."""
        if adapter is None:
            yield model
            return
        kind = str(self.identity["kind"])
        if kind not in _ADAPTERS:
            raise UserError(
                f"server.url={endpoint.url}: this server ({kind}) cannot be given the tuned "
                "expert's adapter while it runs, as vLLM and SGLang can; set "
                "evaluator.engine=transformers."
            )
        load, unload = _ADAPTERS[kind]
        name = adapter_name(adapter)
        distributed.run_on_rank0(lambda: _give(endpoint, load, name, adapter))
        try:
            yield name
        finally:
            if distributed.is_rank0():  # no other one asks any more
                try:
                    endpoint.tell(unload, {"lora_name": name})
                except UserError as error:
                    log.warning("The adapter %s stays on the server: %s", name, error)


def _give(endpoint: Endpoint, load: str, name: str, adapter: Path) -> None:
    """Gives the server an adapter that it does not have."""
    if name in {card.get("id") for card in _cards(endpoint)}:
        return
    try:
        # A word, not JSON, says that it went well.
        endpoint.tell(load, {"lora_name": name, "lora_path": str(adapter.resolve())})
    except UserError as error:
        raise UserError(
            f"{error} To evaluate the tuned expert there, the server must read "
            f"{adapter.resolve()} and take adapters (vLLM: --enable-lora, and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment; SGLang: "
            "--enable-lora), or set evaluator.engine=transformers."
        ) from error


def _at_once(
    ask: Callable[[Request], tuple[Decoded, bool]], requests: Sequence[Request], count: int
) -> list[tuple[Decoded, bool]]:
    """The answers to all requests, so many asked at once; the first error ends them all.

    In daemon threads, so that nobody waits at the end of the process for a server that stalls.
    """
    waiting: SimpleQueue[tuple[int, Request]] = SimpleQueue()
    done: SimpleQueue[tuple[int, tuple[Decoded, bool] | BaseException]] = SimpleQueue()
    for numbered in enumerate(requests):
        waiting.put(numbered)

    def work() -> None:
        with suppress(Empty):
            while True:
                number, request = waiting.get_nowait()
                try:
                    done.put((number, ask(request)))
                except BaseException as error:  # raised again where it is waited for
                    done.put((number, error))

    for _ in range(min(count, len(requests))):
        Thread(target=work, daemon=True).start()
    answers: dict[int, tuple[Decoded, bool]] = {}
    try:
        while len(answers) < len(requests):
            number, answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            answers[number] = answer
    finally:
        with suppress(Empty):
            while True:
                waiting.get_nowait()
    return [answers[number] for number in range(len(requests))]


def _continued(
    dialect: Dialect,
    endpoint: Endpoint,
    model: str,
    stop_ids: Sequence[int],
    sampling: Sampling,
    request: Request,
) -> tuple[Decoded, bool]:
    """One answer, and whether its ids are proven.

    A server may end at a token that ends nothing here (its generation config knows more of them):
    it is asked to go on.
    """
    written: list[int] = []
    proven = True
    while True:
        reply: Reply = dialect.complete(
            endpoint,
            model,
            Request([*request.prompt, *written], request.room - len(written), request.seed),
            sampling,
        )
        written += reply.token_ids
        proven = proven and reply.proven
        answer = ended(written, stop_ids, request.room)
        if answer.finished or len(written) >= request.room:
            return answer, proven
        if not reply.stopped:
            raise UserError(
                f"server.url={endpoint.url} ended an answer after {len(written)} of "
                f"{request.room} tokens, {len(request.prompt)} of its prompt before them, without "
                "a stop token: its context is too short. Start it with a longer one (vLLM: "
                "--max-model-len, llama.cpp: -c for all slots together), or lower "
                "sampler.max_new_tokens (evaluator.max_new_tokens)."
            )


def _cards(endpoint: Endpoint) -> list[dict[str, Any]]:
    """What the server lists as its models."""
    listed = endpoint.get("/v1/models")
    cards = listed.get("data") if isinstance(listed, dict) else None
    return [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []


def _only_model(url: str, cards: Sequence[dict[str, Any]]) -> str:
    names = [str(card.get("id")) for card in cards if not card.get("parent")]  # no adapters
    if len(names) == 1:
        return names[0]
    shown = ", ".join(names[:10]) or "none"
    raise UserError(
        f"server.model is required: server.url={url} lists not one model but {len(names)} "
        f"({shown}); add server.model=NAME."
    )
