"""Request and reply formats of vLLM and SGLang, and of llama.cpp: token ids both ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from httpx2 import Response

from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Request
from lr_exp.inference.engines.http import Endpoint, RetryableError, parsed


@dataclass(frozen=True)
class Completions:
    """`/v1/completions` of vLLM (0.10.2 and newer) and SGLang: ids in, ids out."""

    endpoint: Endpoint
    model: str
    stop_ids: Sequence[int]

    def complete(self, request: Request) -> Decoded:
        """The continuation of a prompt; it may end at a stop token of the server's own.

        Raises UnreachableError, UserError: the request failed or was rejected.
        """

        def read(response: Response) -> Decoded:
            reply = parsed(response)
            choice = _only_choice(reply)
            _check_prompt((reply.get("usage") or {}).get("prompt_tokens"), request)
            return Decoded(_ids(choice.get("token_ids")), choice.get("finish_reason") == "stop")

        return self.endpoint.request("/v1/completions", self._body(request), read)

    def is_supported(self, prompt: Sequence[int]) -> bool:
        """Whether the server accepts and returns token ids."""
        body = self._body(Request(prompt, max_new_tokens=1))
        reply = self.endpoint.request_if_supported("/v1/completions", body)
        return reply is not None and isinstance(_only_choice(reply).get("token_ids"), list)

    def detokenize(self, ids: Sequence[int]) -> str | None:
        """The server's text for these ids; None if it has no such endpoint."""
        body = {"model": self.model, "tokens": list(ids), "skip_special_tokens": False}
        reply = self.endpoint.request_if_supported("/detokenize", body)
        return _text(reply, "prompt", "text")  # vLLM, SGLang

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": list(request.prompt),
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "n": 1,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "seed": request.seed,
            "stream": False,
            # Extensions of the OpenAI API. Omitted ones default to the model's generation config.
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "min_tokens": 0,
            "stop_token_ids": list(self.stop_ids),
            "skip_special_tokens": False,
            "return_token_ids": True,
        }


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp's `/completion`; its `/v1/completions` accepts ids but returns only text."""

    endpoint: Endpoint
    model: str

    def complete(self, request: Request) -> Decoded:
        greedy = request.temperature == 0
        body = {
            "model": self.model,
            "prompt": list(request.prompt),
            "n_predict": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            # All samplers that are applied, in order: no penalties, top_k or min_p.
            "samplers": ["temperature"] if greedy else ["temperature", "top_p"],
            "dynatemp_range": 0.0,
            "mirostat": 0,
            "seed": request.seed,
            "stop": [],
            "ignore_eos": False,
            # Cached prefixes would make answers depend on the order of requests.
            "cache_prompt": False,
            "return_tokens": True,
            "stream": False,
        }

        def read(response: Response) -> Decoded:
            reply = parsed(response)
            _check_prompt(reply.get("tokens_evaluated"), request)
            return Decoded(_ids(reply.get("tokens")), reply.get("stop_type") == "eos")

        return self.endpoint.request("/completion", body, read)

    def detokenize(self, ids: Sequence[int]) -> str | None:
        reply = self.endpoint.request_if_supported("/detokenize", {"tokens": list(ids)})
        return _text(reply, "content")


Dialect = Completions | LlamaCpp


def _only_choice(reply: dict[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        count = len(choices) if isinstance(choices, list) else "no"
        raise RetryableError(f"a reply with {count} choices instead of one")
    return choices[0]


def _ids(value: Any) -> list[int]:
    if not isinstance(value, list) or not value or not all(type(item) is int for item in value):
        raise RetryableError("a reply without a list of token ids")
    return value


def _text(reply: dict[str, Any] | None, *keys: str) -> str | None:
    texts = (reply.get(key) for key in keys) if reply else ()
    return next((text for text in texts if isinstance(text, str)), None)


def _check_prompt(counted: Any, request: Request) -> None:
    if isinstance(counted, int) and counted != len(request.prompt):
        raise UserError(
            f"the server counted {counted} prompt tokens, but {len(request.prompt)} were sent: the "
            "server adds tokens, truncates prompts, or serves another model. Check server.model, "
            "or use sampler.engine=transformers (evaluator.engine=transformers)."
        )
