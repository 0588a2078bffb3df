"""Answers over HTTP: all dialects, server failures, and vocabulary checks."""

import logging
import time

import pytest

from lr_exp.config.settings import ServerSettings
from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Request, UnreachableError, http, last_known_identity
from lr_exp.inference.engines.server import ServerEngine
from lr_exp.models.loading import LanguageModel
from tests.support.servers import FakeServer, serving
from tests.support.tiny import tiny_tokenizer

KINDS = ("vllm", "sglang", "llamacpp")
STOP, OTHER_STOP = 258, 256  # <|im_end|>, <|endoftext|>


def expert(stop_ids=(STOP,)) -> LanguageModel:
    return LanguageModel("tiny", None, tiny_tokenizer(), stop_ids, 260, 512)


def counting(prompt, max_new_tokens, _model):
    """Consecutive ids, depending on the prompt's first id, then the stop token."""
    length = prompt[0] % 16
    ids = [(prompt[0] + index) % 94 + 2 for index in range(length)]
    return [*ids, STOP][:max_new_tokens]


def requests(*firsts: int, max_new_tokens: int = 40) -> list[Request]:
    # Ids of plain letters, which round-trip through text.
    return [Request([first, 40, 41], max_new_tokens, 0) for first in firsts]


def expected(*firsts: int, max_new_tokens: int = 40) -> list[Decoded]:
    answers = [counting([first], max_new_tokens, "") for first in firsts]
    return [Decoded(ids, ids[-1] == STOP) for ids in answers]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.01)


def settings(fake: FakeServer, **changes) -> ServerSettings:
    return ServerSettings(
        url=fake.url, **{"concurrency": 3, "timeout": 5, "attempts": 4, **changes}
    )


def fake(kind="vllm", *, continue_prompt=counting, stop_ids=(STOP,), **changes) -> FakeServer:
    return FakeServer(
        kind, changes.pop("tokenizer", tiny_tokenizer()), continue_prompt, stop_ids, **changes
    )


def ask(server: FakeServer, asked, *, expert_model=None, **changes):
    engine = ServerEngine(settings(server, **changes))
    with engine.open(expert_model or expert()) as generate:
        return generate(asked)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_back_in_the_order_of_their_prompts(kind):
    firsts = (40, 47, 44, 41, 46, 33, 42)
    with serving(fake(kind)) as server:
        for limit in ({}, {"max_new_tokens": 3}):
            assert ask(server, requests(*firsts, **limit)) == expected(*firsts, **limit)
        assert server.max_concurrent <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_requests_set_all_sampling_parameters(kind):
    """Servers take omitted ones from the model's generation config."""
    with serving(fake(kind)) as server:
        ask(server, [Request([40, 41], 9, 17)])
        greedy = server.completions()[-1]
        ask(server, [Request([40, 41], 9, 17, temperature=0.7, top_p=0.9)])
        sampled = server.completions()[-1]
    assert greedy["temperature"] == 0
    assert (sampled["temperature"], sampled["top_p"]) == (0.7, 0.9)
    assert sampled["seed"] == 17
    if kind in ("vllm", "sglang"):
        neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0}
        assert greedy.items() >= {**neutral, "frequency_penalty": 0, "n": 1}.items()
        assert (greedy["stop_token_ids"], greedy["max_tokens"]) == ([STOP], 9)
        assert greedy["prompt"] == [40, 41]
    if kind == "llamacpp":
        assert (greedy["samplers"], greedy["cache_prompt"]) == (["temperature"], False)
        assert sampled["samplers"] == ["temperature", "top_p"]
        assert (greedy["prompt"], greedy["n_predict"]) == ([40, 41], 9)


@pytest.mark.parametrize("outcome", ["500", "503", "429", "cut", "garbage", "few"])
@pytest.mark.parametrize("kind", KINDS)
def test_failed_requests_are_retried(kind, outcome):
    """The first completion detects the dialect; then answers fail once or twice."""
    with serving(fake(kind, failures=["ok", outcome, outcome, outcome, "ok", outcome])) as server:
        assert ask(server, requests(40, 41, 42, 43), attempts=6) == expected(40, 41, 42, 43)
        assert not server.failures


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("500", """status 500: {"error": {"message": "try later"}}"""),
        ("429", "status 429"),
        ("cut", "RemoteProtocolError"),
        ("garbage", "not JSON (<html>busy</html>)"),
        ("few", "0 choices instead of one"),
        ("stall", "no data for 0.2 s"),
    ],
)
def test_a_persistent_failure_is_reported_with_its_reason(outcome, reason):
    with serving(fake(failures=["ok", outcome])) as server:
        server.failures = ["ok"]
        engine = ServerEngine(settings(server, attempts=3, timeout=0.2))
        with engine.open(expert()) as generate:
            assert generate(requests(40)) == expected(40)
            server.failures = [outcome, "*"]
            before = len(server.completions())
            with pytest.raises(UnreachableError) as error:
                generate(requests(41))
            assert len(server.completions()) - before == 3
            # The same engine works again once the server does.
            server.failures = []
            server.released.set()
            assert generate(requests(41, 42)) == expected(41, 42)
    message = str(error.value)
    assert reason in message
    for part in (server.url, "/v1/completions", "3 attempt(s)", "server.timeout", "resumes"):
        assert part in message
    assert "\n" not in message


def test_a_failure_does_not_wait_for_other_requests():
    def continue_prompt(prompt, max_new_tokens, model):
        if prompt[0] != 41:
            time.sleep(3)
        return counting(prompt, max_new_tokens, model)

    with serving(fake("llamacpp", continue_prompt=continue_prompt)) as server:
        engine = ServerEngine(settings(server, attempts=1))
        started = time.monotonic()
        with engine.open(expert()) as generate:
            server.failures = ["ok", "ok", "500", "*"]
            with pytest.raises(UserError):
                generate(requests(42, 43, 41))
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("outcome", "advice"), [("401", "LR_EXP_API_KEY"), ("400", "server.model")]
)
def test_a_rejected_request_is_not_retried(outcome, advice):
    with serving(fake("llamacpp", failures=[outcome, "*"])) as server:
        with pytest.raises(UserError, match=advice):
            ask(server, requests(40))
        assert len(server.completions()) == 1


def test_waits_double_and_retry_after_is_respected(monkeypatch):
    waits = []
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 1.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    here = ServerSettings(url="http://127.0.0.1:1", timeout=1, attempts=9, concurrency=1)
    endpoint = http.Endpoint(here)
    with pytest.raises(UnreachableError):
        endpoint.request_if_supported("/v1/models")
    doubled = [1, 2, 4, 8, 16, 32, 60, 60]
    assert all(0 <= wait - base <= 1 for wait, base in zip(waits, doubled, strict=True))
    assert [http.retry_after(text) for text in ("7", None, "soon", "nan", "-1")] == [7, 0, 0, 0, 0]
    assert http.retry_after("1e9") == http.MAX_WAIT_SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_another_tokenizer_is_detected_before_decoding(kind):
    other = tiny_tokenizer(special=("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|pad|>"))
    with serving(fake(kind, tokenizer=other)) as server:
        with pytest.raises(UserError, match=r"id 25[78] is '<\|im_(end|start)\|>' there") as error:
            ask(server, requests(40))
        assert len(server.completions()) <= 1  # the one that detects the dialect
    assert "the expert tiny" in str(error.value)
    assert "'served'" in str(error.value)


def test_a_server_without_detokenize_gives_a_warning(caplog):
    with serving(fake(detokenizes=False)) as server:
        assert ask(server, requests(40)) == expected(40)
    assert "checked only when its answers are scored" in caplog.text


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        # An added BOS token changes the prompt, which only the token count shows.
        ("vllm", {"added_tokens": 1}, "counted 4 prompt tokens, but 3 were sent"),
        ("llamacpp", {"added_tokens": 1}, "counted 4 prompt tokens, but 3 were sent"),
        ("llamacpp", {"continue_prompt": lambda *_: [50, 51]}, "2 of 40.*context is too short"),
        ("text", {}, "does not accept and return token ids"),
    ],
)
def test_a_server_that_cannot_answer_as_the_expert_is_rejected(kind, changes, message):
    with serving(fake(kind, **changes)) as server, pytest.raises(UserError, match=message):
        ask(server, requests(40))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_experts_stop_tokens_end_an_answer(kind):
    """A reply that ends at another stop token of the server is continued."""

    def continue_prompt(prompt, max_new_tokens, _model):
        if OTHER_STOP not in prompt:
            return [50, 51, OTHER_STOP][:max_new_tokens]
        return [52, STOP][:max_new_tokens]

    stops = {"continue_prompt": continue_prompt, "stop_ids": (STOP, OTHER_STOP)}
    with serving(fake(kind, **stops)) as server:
        ids = [50, 51, OTHER_STOP, 52, STOP]
        assert ask(server, requests(40)) == [Decoded(ids, True)]
        assert ask(server, requests(40, max_new_tokens=4)) == [Decoded(ids[:4], False)]


def test_ids_beyond_the_stop_token_or_the_limit_are_dropped():
    """llama.cpp exceeds the limit to complete a character."""

    def continue_prompt(prompt, max_new_tokens, _model):
        return [50, STOP, 51] if prompt[0] == 40 else [50] * (max_new_tokens + 2)

    with serving(fake("llamacpp", continue_prompt=continue_prompt)) as server:
        answers = ask(server, requests(40, 41, max_new_tokens=3))
    assert answers == [Decoded([50, STOP], True), Decoded([50] * 3, False)]


def test_the_key_is_sent_to_the_server_alone_and_never_shown(monkeypatch, caplog):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv(http.KEY, "s3cret-key-0123456789")
    with serving(fake(failures=["ok", "500", "*"])) as server, caplog.at_level(logging.DEBUG):
        with pytest.raises(UserError) as error:
            ask(server, requests(40), attempts=2)
        keys = {headers.get("Authorization") for headers in server.headers}
        assert keys == {"Bearer s3cret-key-0123456789"}
    assert "s3cret" not in str(error.value) + caplog.text


def test_the_model_must_be_named_if_there_are_several():
    with serving(fake(more_models=["second"])) as server:
        with pytest.raises(UserError, match=r"server\.model is required.*served, second"):
            ask(server, requests(40))
        assert ask(server, requests(40), model="served") == expected(40)
        with pytest.raises(UserError, match=r"server\.model=third"):
            ask(server, requests(40), model="third")


@pytest.mark.parametrize(
    ("kind", "version"),
    [("vllm", "0.33.0"), ("sglang", "0.6.1"), ("llamacpp", "b11434-0"), ("text", None)],
)
def test_a_servers_identity_is_reported_and_remembered(kind, version, tmp_path, caplog):
    place = tmp_path / "engines" / "one.json"
    with serving(fake(kind)) as server:
        first = last_known_identity(ServerEngine(settings(server)), place)
    identity = {"kind": "someone" if kind == "text" else kind, "model": "served"}
    assert first.items() >= {"engine": "server", "version": version, **identity}.items()
    gone = ServerEngine(settings(server, attempts=1))
    assert last_known_identity(gone, place) == first
    assert "no server listens" in caplog.text
    with pytest.raises(UnreachableError):
        last_known_identity(gone, tmp_path / "other.json")


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_adapter_is_named_by_its_content_and_unloaded(kind, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    requests_to = []

    def continue_prompt(prompt, max_new_tokens, model):
        requests_to.append((model, dict(server.adapters)))
        return counting(prompt, max_new_tokens, model)

    with serving(fake(kind, continue_prompt=continue_prompt)) as server:
        engine = ServerEngine(settings(server))
        names = []
        for content in (b"weights", b"others", b"weights"):
            (tmp_path / "adapter_model.safetensors").write_bytes(content)
            with engine.open(expert(), tmp_path) as generate:
                assert generate(requests(40)) == expected(40)
            name, loaded = requests_to[-1]
            assert loaded == {name: str(tmp_path)}
            assert server.adapters == {}
            names.append(name)
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [("llamacpp", "evaluator.engine=transformers"), ("vllm", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")],
)
def test_a_server_without_adapter_support_raises(kind, advice, tmp_path):
    with (
        serving(fake(kind, loads_adapters=False)) as server,
        pytest.raises(UserError, match=advice),
        ServerEngine(settings(server)).open(expert(), tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host", "http://", "http://user@host", "http://h?key=1"]
)
def test_an_invalid_address_is_rejected(url):
    with pytest.raises(UserError, match=r"server\.url"):
        ServerSettings(url=url)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_common_endings_of_an_address_are_accepted(ending):
    with serving(fake()) as server:
        server.url += ending
        assert ask(server, requests(40)) == expected(40)
