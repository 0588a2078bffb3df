"""Gets answers from a server: vLLM, SGLang or llama.cpp.

Requests set all sampling parameters, so the server's defaults do not matter. The server receives
prompts and, if the tuned expert is evaluated on it, the adapter's path.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.config.settings import ServerSettings
from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate, Request, adapter_name, truncated
from lr_exp.inference.engines.dialects import Completions, Dialect, LlamaCpp
from lr_exp.inference.engines.http import Endpoint
from lr_exp.models.loading import LanguageModel
from lr_exp.models.vocabulary import text_of

log = logging.getLogger(__name__)

# Paths and keys of a server's version, by the `owned_by` of its models.
_VERSIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "vllm": (("/version", "version"),),
    "sglang": (("/server_info", "version"), ("/get_server_info", "version")),
    "llamacpp": (("/props", "build_info"),),
}
# Paths that load and unload an adapter at runtime.
_ADAPTER_PATHS = {
    "vllm": ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    "sglang": ("/load_lora_adapter", "/unload_lora_adapter"),
}

# Of the check whether the server's token ids mean the expert's tokens: ids spread over the whole
# vocabulary, and texts in several scripts.
_SPREAD_IDS = 48
_TEXTS = (
    "The answer is \\boxed{3.14}, so 7 * 8 = 56.\n\n\tdef f(x):  return x",
    "Grüße, naïve café «Привет» 你好世界 こんにちは مرحبا नमस्ते 🙂",
)
_REPLACEMENT = "\ufffd"  # part of a character, which servers display differently


class ServerEngine:
    def __init__(self, settings: ServerSettings) -> None:
        self._settings, self._endpoint = settings, Endpoint(settings)

    def close(self) -> None:
        """Does nothing: no connection is kept."""

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """See `Engine.identity`; requested once."""
        endpoint = self._endpoint
        cards = _cards(endpoint)
        model = self._settings.model or _only_model(endpoint.url, cards)
        kind = next((card.get("owned_by") for card in cards if card.get("id") == model), None)
        if kind is None and cards:  # llama.cpp accepts any model name
            kind = cards[0].get("owned_by")
        version = None
        for path, key in _VERSIONS.get(str(kind), ()):
            reply = endpoint.request_if_supported(path)
            if reply and reply.get(key) is not None:
                version = str(reply[key])
                break
        return {"engine": "server", "kind": kind, "model": model, "version": version}

    @contextmanager
    def open(self, expert: LanguageModel, adapter: Path | None = None) -> Iterator[Generate]:
        dialect = self._dialect(expert)
        self._check_vocabulary(dialect, expert)
        with self._served_model(adapter) as model:
            served = replace(dialect, model=model)

            def answer(job: tuple[int, Request]) -> tuple[int, Decoded]:
                return job[0], _answer(served, expert.stop_ids, job[1])

            def generate(requests: Sequence[Request]) -> list[Decoded]:
                # A pool's threads are daemons: a server that stalls does not delay the exit. The
                # first error is raised, and the other requests are dropped.
                with ThreadPool(min(self._settings.concurrency, len(requests))) as pool:
                    answers = dict(pool.imap_unordered(answer, enumerate(requests)))
                return [answers[number] for number in range(len(requests))]

            yield generate

    def _dialect(self, expert: LanguageModel) -> Dialect:
        model = str(self.identity["model"])
        if self.identity["kind"] == "llamacpp":
            return LlamaCpp(self._endpoint, model)
        completions = Completions(self._endpoint, model, expert.stop_ids)
        if completions.is_supported(_probe_ids(expert.tokenizer)[:8]):
            return completions
        raise UserError(
            f"server.url={self._endpoint.url} does not accept and return token ids for "
            f"server.model={model}. Check the model's name, and use vLLM (0.10.2 or newer), SGLang "
            "or llama.cpp, or sampler.engine=transformers (evaluator.engine=transformers)."
        )

    def _check_vocabulary(self, dialect: Dialect, expert: LanguageModel) -> None:
        """Raises UserError if the server's token ids differ from the expert's.

        Two models that share a tokenizer cannot be distinguished here; scoring does that
        (`pipeline.sampling`).
        """
        url = self._endpoint.url
        for token_id in _probe_ids(expert.tokenizer):
            theirs = dialect.detokenize([token_id])
            ours = text_of(expert.tokenizer, [token_id], special=True)
            if theirs is None:
                log.warning(
                    "server.url=%s has no /detokenize endpoint, so whether it serves %s is checked "
                    "only when its answers are scored.",
                    url,
                    expert.name,
                )
                return
            if theirs.strip() != ours.strip():  # some tokenizers strip a leading space
                raise UserError(
                    f"server.url={url} serves {dialect.model!r}, whose token ids differ from those "
                    f"of the expert {expert.name}: id {token_id} is {theirs!r} there and {ours!r} "
                    "here. Serve the expert there, or set expert.path or server.model to matching "
                    "models."
                )

    @contextmanager
    def _served_model(self, adapter: Path | None) -> Iterator[str]:
        """The model's name in requests; loads the adapter, if any, and unloads it at the end."""
        if adapter is None:
            yield str(self.identity["model"])
            return
        endpoint, kind = self._endpoint, str(self.identity["kind"])
        if kind not in _ADAPTER_PATHS:
            raise UserError(
                f"server.url={endpoint.url}: this server ({kind}) cannot load the tuned expert's "
                "adapter at runtime; use vLLM or SGLang, or set evaluator.engine=transformers."
            )
        load, unload = _ADAPTER_PATHS[kind]
        name = adapter_name(adapter)
        distributed.run_on_rank0(lambda: _load_adapter(endpoint, load, name, adapter))
        try:
            yield name
        finally:
            if distributed.is_rank0():  # the other ranks are done
                try:
                    endpoint.request(unload, {"lora_name": name}, lambda response: None)
                except UserError as error:
                    log.warning(
                        "The adapter %s could not be unloaded from the server: %s", name, error
                    )


def _load_adapter(endpoint: Endpoint, load: str, name: str, adapter: Path) -> None:
    if name in {card.get("id") for card in _cards(endpoint)}:
        return
    try:
        body = {"lora_name": name, "lora_path": str(adapter.resolve())}
        endpoint.request(load, body, lambda response: None)  # the reply is text, not JSON
    except UserError as error:
        raise UserError(
            f"{error} To evaluate the tuned expert there, the server must be able to read "
            f"{adapter.resolve()} and load adapters (vLLM: --enable-lora, and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment; SGLang: "
            "--enable-lora), or set evaluator.engine=transformers."
        ) from error


def _answer(dialect: Dialect, stop_ids: Sequence[int], request: Request) -> Decoded:
    """One answer.

    The server's generation config may have more stop tokens than the expert. If one of those ends
    the reply, the next request continues it.
    """
    generated: list[int] = []
    while True:
        prompt, limit = [*request.prompt, *generated], request.max_new_tokens - len(generated)
        reply = dialect.complete(replace(request, prompt=prompt, max_new_tokens=limit))
        generated += reply.token_ids
        answer = truncated(generated, stop_ids, request.max_new_tokens)
        if answer.finished or len(generated) >= request.max_new_tokens:
            return answer
        if not reply.finished:
            raise UserError(
                f"server.url={dialect.endpoint.url} ended an answer after {len(generated)} of "
                f"{request.max_new_tokens} tokens without a stop token (its prompt has "
                f"{len(request.prompt)}): the server's context is too short. Increase it (vLLM: "
                "--max-model-len, llama.cpp: -c for all slots together), or lower "
                "sampler.max_new_tokens (evaluator.max_new_tokens)."
            )


def _cards(endpoint: Endpoint) -> list[dict[str, Any]]:
    cards = (endpoint.request_if_supported("/v1/models") or {}).get("data")
    return [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []


def _only_model(url: str, cards: Sequence[dict[str, Any]]) -> str:
    names = [str(card.get("id")) for card in cards if not card.get("parent")]  # skip adapters
    if len(names) == 1:
        return names[0]
    shown = ", ".join(names[:10]) or "none"
    raise UserError(
        f"server.model is required: server.url={url} lists {len(names)} models ({shown}); add "
        "server.model=NAME."
    )


def _probe_ids(tokenizer: Any) -> list[int]:
    """Ids of special, rare and ordinary tokens that decode to complete characters."""
    all_ids = sorted(tokenizer.get_vocab().values())
    stride = max(1, len(all_ids) // _SPREAD_IDS)
    ids = [*tokenizer.all_special_ids, *all_ids[::stride]]
    for text in _TEXTS:
        ids += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    texts = {token_id: text_of(tokenizer, [token_id], special=True) for token_id in ids}
    return [token_id for token_id, text in texts.items() if text and _REPLACEMENT not in text]
