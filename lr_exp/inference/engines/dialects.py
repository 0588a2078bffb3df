"""How each kind of server is asked for a continuation of token ids, and how its reply is read.

Knows the requests and replies of vLLM and SGLang, llama.cpp, TGI, and of plain OpenAI completions;
knows nothing of retries, stop tokens or batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lr_exp.errors import UserError
from lr_exp.inference.engines import Request, Sampling
from lr_exp.inference.engines.http import Endpoint, UnreadableError


@dataclass(frozen=True)
class Reply:
    """What a server wrote after a prompt."""

    token_ids: list[int]  # with the stop token that ended it
    stopped: bool  # it ended it by itself, not at the limit
    proven: bool = True  # the ids are the server's own, not read from its text


class Dialect(Protocol):
    """One way of asking."""

    name: str

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        """The continuation of a prompt.

        Raises:
            Unreachable, UserError: there is none.
        """
        ...

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        """What the server reads these ids as; None where it does not say."""
        ...


class Completions:
    """`/v1/completions` as vLLM (0.10.2 and newer) and SGLang speak it: ids in, ids out."""

    name = "completions"

    def __init__(self, stop_ids: Sequence[int]) -> None:
        self._stop_ids = list(stop_ids)

    def body(self, model: str, request: Request, sampling: Sampling) -> dict[str, Any]:
        return {
            **_plain(model, list(request.prompt), request, sampling),
            # Beyond OpenAI's own. What is left out is taken from the model's generation config.
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

    def offered(self, endpoint: Endpoint, model: str, prompt: Sequence[int]) -> bool:
        """Whether the server takes ids and gives ids."""
        body = self.body(model, Request(prompt, room=1, seed=0), Sampling())
        reply = endpoint.offer("/v1/completions", body)
        return reply is not None and isinstance(_only_choice(reply).get("token_ids"), list)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        asked = {"model": model, "tokens": list(ids), "skip_special_tokens": False}
        reply = endpoint.offer("/detokenize", asked)
        if isinstance(reply, dict):  # vLLM, SGLang
            text = reply.get("prompt", reply.get("text"))
            return text if isinstance(text, str) else None
        return None


class LlamaCpp:
    """llama.cpp's own `/completion`: its OpenAI-compatible one takes ids, but gives text only."""

    name = "llama.cpp"

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        greedy = sampling.temperature == 0
        body = {
            "model": model,
            "prompt": list(request.prompt),
            "n_predict": request.room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # Only these are applied, in this order: no penalty, no top_k, no min_p.
            "samplers": ["temperature"] if greedy else ["temperature", "top_p"],
            "dynatemp_range": 0.0,
            "mirostat": 0,
            "seed": request.seed,
            "stop": [],
            "ignore_eos": False,
            # A prefix that another request left would make the answer depend on the order.
            "cache_prompt": False,
            "return_tokens": True,
            "stream": False,
        }

        def read(reply: Any) -> Reply:
            if not isinstance(reply, dict):
                raise UnreadableError("no object")
            _check_prompt(reply.get("tokens_evaluated"), request)
            return Reply(_ids(reply.get("tokens")), reply.get("stop_type") == "eos")

        return endpoint.post("/completion", body, read)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        reply = endpoint.offer("/detokenize", {"tokens": list(ids)})
        text = reply.get("content") if isinstance(reply, dict) else None
        return text if isinstance(text, str) else None


class TextGenerationInference:
    """TGI's own `/generate`: text in, which its `/tokenize` proves to be the same ids; ids out."""

    name = "tgi"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def complete(
        self, endpoint: Endpoint, model: str, request: Request, sampling: Sampling
    ) -> Reply:
        text = _as_text(self._tokenizer, request.prompt)

        def read_ids(reply: Any) -> list[int]:
            if not isinstance(reply, list) or not all(isinstance(one, dict) for one in reply):
                raise UnreadableError("no list of tokens")
            return _ids([one.get("id") for one in reply])

        taken = endpoint.post("/tokenize", {"inputs": text}, read_ids)
        if taken != list(request.prompt):
            raise UserError(_other_prompt(f"as {taken[:8]}..."))
        chosen: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            chosen = {"do_sample": True, "temperature": sampling.temperature}
            if sampling.top_p < 1:  # TGI refuses 1
                chosen["top_p"] = sampling.top_p
        parameters = {
            **chosen,
            "max_new_tokens": request.room,
            "seed": request.seed + 1,  # it refuses 0
            "stop": [],
            "details": True,
            "return_full_text": False,
        }

        def read(reply: Any) -> Reply:
            details = reply.get("details") if isinstance(reply, dict) else None
            if not isinstance(details, dict) or not isinstance(details.get("tokens"), list):
                raise UnreadableError("no details with tokens")
            ids = [one.get("id") if isinstance(one, dict) else None for one in details["tokens"]]
            return Reply(_ids(ids), details.get("finish_reason") == "eos_token")

        return endpoint.post("/generate", {"inputs": text, "parameters": parameters}, read)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        return None  # each prompt is proven by itself


class PlainText:
    """`/v1/completions` of servers that speak text only.

    An answer's ids are read from its text by the expert's tokenizer. They are proven where its text
    has one reading, also after the prompt, and of as many tokens as the server counted.
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
            written = choice.get("text")
            if not isinstance(written, str):
                raise UnreadableError("a choice without text")
            stopped = choice.get("finish_reason") == "stop"
            return self._read(text, request, written, stopped, _counted(reply, "completion_tokens"))

        return endpoint.post("/v1/completions", _plain(model, text, request, sampling), read)

    def _read(
        self, prompt: str, request: Request, written: str, stopped: bool, counted: int | None
    ) -> Reply:
        ids = _tokenized(self._tokenizer, written)
        whole = _tokenized(self._tokenizer, prompt + written)
        proven = whole == [*request.prompt, *ids] and _decoded(self._tokenizer, ids) == written
        if stopped and not (ids and ids[-1] in self._stop_ids):
            # The text leaves out which of them it was.
            proven = proven and len(self._stop_ids) == 1
            own = self._tokenizer.eos_token_id
            ids.append(own if own in self._stop_ids else self._stop_ids[0])
        # Some count the stop token, some do not.
        proven = proven and counted in (len(ids), len(ids) - stopped)
        return Reply(ids, stopped, proven)

    def detokenize(self, endpoint: Endpoint, model: str, ids: Sequence[int]) -> str | None:
        return None


def _plain(
    model: str, prompt: str | list[int], request: Request, sampling: Sampling
) -> dict[str, Any]:
    """A completion in OpenAI's own words."""
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": request.room,
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
        found = len(choices) if isinstance(choices, list) else "no"
        raise UnreadableError(f"{found} choices where one was asked for")
    return choices[0]


def _ids(value: Any) -> list[int]:
    """Token ids, one or more."""
    if not isinstance(value, list) or not value or not all(type(one) is int for one in value):
        raise UnreadableError("no list of token ids")
    return value


def _counted(reply: dict[str, Any], key: str) -> int | None:
    usage = reply.get("usage")
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _check_prompt(counted: Any, request: Request) -> None:
    """Raises UserError where the server read another number of tokens than it was sent."""
    if isinstance(counted, int) and counted != len(request.prompt):
        raise UserError(_other_prompt(f"as {counted} tokens"))


def _other_prompt(how: str) -> str:
    return (
        f"the server reads a prompt {how} that the expert reads otherwise: it adds tokens of its "
        "own, cuts prompts, or serves another model. Check server.model, or take "
        "sampler.engine=transformers (evaluator.engine=transformers)."
    )


def _as_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of these ids, which the tokenizer reads as these ids again."""
    text = _decoded(tokenizer, ids)
    if _tokenized(tokenizer, text) != list(ids):
        raise UserError(
            "a prompt cannot be sent as text, which this server wants: the expert's tokenizer "
            "would read it as other ids. Take a server that takes token ids (vLLM, SGLang, "
            "llama.cpp) or sampler.engine=transformers (evaluator.engine=transformers)."
        )
    return text


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def _tokenized(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
