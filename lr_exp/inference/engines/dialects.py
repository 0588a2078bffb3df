"""Request and reply formats of vLLM and SGLang, llama.cpp, TGI, and plain OpenAI completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lr_exp.errors import UserError
from lr_exp.inference.engines import Request, Sampling
from lr_exp.inference.engines.http import Endpoint, UnreadableError
from lr_exp.inference.engines.vocabulary_check import detokenize


@dataclass(frozen=True)
class Reply:
    """A server's continuation of a prompt."""

    token_ids: list[int]  # including the stop token
    stopped: bool  # ended by a stop token, not by the limit
    certain: bool = True  # False if the ids were recovered from text and may differ


class Dialect(Protocol):
    """The request and reply formats of one kind of server."""

    name: str

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        """Requests the continuation of a prompt.

        Raises:
            UnreachableError, UserError: the request failed or was rejected.
        """
        ...

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        """The server's text for these ids; None if it has no such endpoint."""
        ...


class Completions:
    """`/v1/completions` of vLLM (0.10.2 and newer) and SGLang: ids in, ids out."""

    name = "completions"

    def __init__(self, stop_ids: Sequence[int]) -> None:
        self._stop_ids = list(stop_ids)

    def body(self, model: str, request: Request, sampling: Sampling) -> dict[str, Any]:
        return {
            **_openai_body(model, list(request.prompt), request, sampling),
            # Extensions of the OpenAI API. Omitted ones default to the model's generation config.
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "min_tokens": 0,
            "stop_token_ids": self._stop_ids,
            "skip_special_tokens": False,
            "return_token_ids": True,
        }

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        def read(reply: Any) -> Reply:
            choice = _only_choice(reply)
            _check_prompt(_counted(reply, "prompt_tokens"), request)
            return Reply(_ids(choice.get("token_ids")), choice.get("finish_reason") == "stop")

        return endpoint.post("/v1/completions", self.body(model, request, sampling), read)

    def is_supported(self, endpoint: Endpoint, model: str, prompt: Sequence[int]) -> bool:
        """Whether the server accepts and returns token ids."""
        body = self.body(model, Request(prompt, max_new_tokens=1, seed=0), Sampling())
        reply = endpoint.try_post("/v1/completions", body)
        return reply is not None and isinstance(_only_choice(reply).get("token_ids"), list)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        body = {"model": model, "tokens": list(ids), "skip_special_tokens": False}
        reply = endpoint.try_post("/detokenize", body)
        if isinstance(reply, dict):  # vLLM, SGLang
            text = reply.get("prompt", reply.get("text"))
            return text if isinstance(text, str) else None
        return None


class LlamaCpp:
    """llama.cpp's `/completion`; its `/v1/completions` accepts ids but returns only text."""

    name = "llama.cpp"

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        greedy = sampling.temperature == 0
        body = {
            "model": model,
            "prompt": list(request.prompt),
            "n_predict": request.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
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

        def read(reply: Any) -> Reply:
            if not isinstance(reply, dict):
                raise UnreadableError("not a JSON object")
            _check_prompt(reply.get("tokens_evaluated"), request)
            return Reply(_ids(reply.get("tokens")), reply.get("stop_type") == "eos")

        return endpoint.post("/completion", body, read)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        reply = endpoint.try_post("/detokenize", {"tokens": list(ids)})
        text = reply.get("content") if isinstance(reply, dict) else None
        return text if isinstance(text, str) else None


class TextGenerationInference:
    """TGI's `/generate`: text in, checked with `/tokenize` to be the same ids; ids out."""

    name = "tgi"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        text = _as_text(self._tokenizer, request.prompt)

        def read_ids(reply: Any) -> list[int]:
            if not isinstance(reply, list) or not all(isinstance(token, dict) for token in reply):
                raise UnreadableError("not a list of tokens")
            return _ids([token.get("id") for token in reply])

        server_ids = endpoint.post("/tokenize", {"inputs": text}, read_ids)
        if server_ids != list(request.prompt):
            raise UserError(_prompt_mismatch(f"as {server_ids[:8]}..."))
        settings: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            settings = {"do_sample": True, "temperature": sampling.temperature}
            if sampling.top_p < 1:  # TGI rejects 1
                settings["top_p"] = sampling.top_p
        parameters = {
            **settings,
            "max_new_tokens": request.max_new_tokens,
            "seed": request.seed + 1,  # TGI rejects 0
            "stop": [],
            "details": True,
            "return_full_text": False,
        }

        def read(reply: Any) -> Reply:
            details = reply.get("details") if isinstance(reply, dict) else None
            if not isinstance(details, dict) or not isinstance(details.get("tokens"), list):
                raise UnreadableError("no details.tokens")
            tokens = details["tokens"]
            ids = [token.get("id") if isinstance(token, dict) else None for token in tokens]
            return Reply(_ids(ids), details.get("finish_reason") == "eos_token")

        return endpoint.post("/generate", {"inputs": text, "parameters": parameters}, read)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        return None  # `complete` checks each prompt


class PlainText:
    """`/v1/completions` of servers that accept and return only text.

    The expert's tokenizer recovers an answer's ids from its text. They are certain if they decode
    to the same text, tokenize the same after the prompt, and are as many as the server counted.
    """

    name = "text"

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        text = _as_text(self._tokenizer, request.prompt)

        def read(reply: Any) -> Reply:
            choice = _only_choice(reply)
            _check_prompt(_counted(reply, "prompt_tokens"), request)
            answer = choice.get("text")
            if not isinstance(answer, str):
                raise UnreadableError("the choice has no text")
            stopped = choice.get("finish_reason") == "stop"
            return self._read(text, request, answer, stopped, _counted(reply, "completion_tokens"))

        return endpoint.post("/v1/completions", _openai_body(model, text, request, sampling), read)

    def _read(
        self, prompt: str, request: Request, answer: str, stopped: bool, counted: int | None
    ) -> Reply:
        ids = _tokenized(self._tokenizer, answer)
        all_ids = _tokenized(self._tokenizer, prompt + answer)
        certain = all_ids == [*request.prompt, *ids] and detokenize(self._tokenizer, ids) == answer
        if stopped and not (ids and ids[-1] in self._stop_ids):
            # The text does not contain the stop token.
            certain = certain and len(self._stop_ids) == 1
            eos = self._tokenizer.eos_token_id
            ids.append(eos if eos in self._stop_ids else self._stop_ids[0])
        # Not all servers count the stop token.
        certain = certain and counted in (len(ids), len(ids) - stopped)
        return Reply(ids, stopped, certain)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        return None


def _openai_body(
    model: str, prompt: str | list[int], request: Request, sampling: Sampling
) -> dict[str, Any]:
    """The body of a request with only the OpenAI API's own fields."""
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "n": 1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "seed": request.seed,
        "stream": False,
    }


def _only_choice(reply: Any) -> dict[str, Any]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        count = len(choices) if isinstance(choices, list) else "no"
        raise UnreadableError(f"{count} choices instead of one")
    return choices[0]


def _ids(value: Any) -> list[int]:
    """Checks that a value is a non-empty list of token ids."""
    if not isinstance(value, list) or not value or not all(type(item) is int for item in value):
        raise UnreadableError("not a list of token ids")
    return value


def _counted(reply: dict[str, Any], key: str) -> int | None:
    usage = reply.get("usage")
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _check_prompt(counted: Any, request: Request) -> None:
    """Raises UserError if the server counted another number of prompt tokens."""
    if isinstance(counted, int) and counted != len(request.prompt):
        raise UserError(_prompt_mismatch(f"as {counted} tokens"))


def _prompt_mismatch(how: str) -> str:
    return (
        f"the server tokenizes a prompt {how}, unlike the expert: it adds its own tokens, "
        "truncates prompts, or serves another model. Check server.model, or use "
        "sampler.engine=transformers (evaluator.engine=transformers)."
    )


def _as_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of these ids; raises UserError if it does not tokenize to the same ids."""
    text = detokenize(tokenizer, ids)
    if _tokenized(tokenizer, text) != list(ids):
        raise UserError(
            "this server accepts only text, but a prompt's text does not tokenize to the same ids. "
            "Use a server that accepts token ids (vLLM, SGLang, llama.cpp) or "
            "sampler.engine=transformers (evaluator.engine=transformers)."
        )
    return text


def _tokenized(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
