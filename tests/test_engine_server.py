"""Answers over HTTP: every dialect, every way a server can fail, and whose ids they are."""

import logging
import time
from dataclasses import replace

import pytest

from lr_exp.config.settings import ServerSettings
from lr_exp.errors import UserError
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Request, Sampling, UnreachableError, http, remembered_identity
from lr_exp.inference.engines.server import ServerEngine
from lr_exp.models.loading import LanguageModel

from .servers import FakeServer, serving
from .tiny import tiny_tokenizer

KINDS = ("vllm", "sglang", "llamacpp", "tgi", "text")
WITH_IDS = KINDS[:4]
STOP, OTHER_STOP = 258, 256  # <|im_end|>, <|endoftext|>
GREEDY = Sampling()


def expert(stop_ids=(STOP,)) -> LanguageModel:
    return LanguageModel("tiny", None, tiny_tokenizer(), stop_ids, 260, 512)


def counting(prompt, room, _model):
    """Ids that say which prompt they follow, and the stop token after as many as its first id."""
    length = prompt[0] % 16
    written = [(prompt[0] + place) % 94 + 2 for place in range(length)]
    return ([*written, STOP])[:room]


def requests(*firsts: int, room: int = 40) -> list[Request]:
    # Ids of plain letters: as text they are read back one by one.
    return [Request([first, 40, 41], room, 0) for first in firsts]


def expected(*firsts: int, room: int = 40) -> list[Decoded]:
    answers = [counting([first], room, "") for first in firsts]
    return [Decoded(ids, ids[-1] == STOP) for ids in answers]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.01)


def settings(fake: FakeServer, **changes) -> ServerSettings:
    return ServerSettings(
        url=fake.url, **{"concurrency": 3, "timeout": 5, "attempts": 4, **changes}
    )


def fake(kind="vllm", *, brain=counting, stop_ids=(STOP,), **changes) -> FakeServer:
    return FakeServer(kind, changes.pop("tokenizer", tiny_tokenizer()), brain, stop_ids, **changes)


def ask(server: FakeServer, asked, *, sampling=GREEDY, reader=None, **changes):
    engine = ServerEngine(settings(server, **changes))
    with engine.open(reader or expert()) as generate:
        return generate(asked, sampling)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_back_in_the_order_of_their_prompts(kind):
    firsts = (40, 47, 44, 41, 46, 33, 42)
    with serving(fake(kind)) as server:
        assert ask(server, requests(*firsts)) == expected(*firsts)
        assert ask(server, requests(*firsts, room=3)) == expected(*firsts, room=3)
        assert server.most_at_once <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_the_servers_own_settings(kind):
    """A model's generation config brings a temperature, a top-p and penalties of its own."""
    drawn = Sampling(temperature=0.7, top_p=0.9)
    with serving(fake(kind)) as server:
        ask(server, [Request([40, 41], 9, 17)])
        told = server.completions()[-1]
        ask(server, [Request([40, 41], 9, 17)], sampling=drawn)
        drawn_told = server.completions()[-1]
    if kind == "tgi":
        assert told["parameters"]["do_sample"] is False
        told, drawn_told = told["parameters"], drawn_told["parameters"]
        assert (told["max_new_tokens"], drawn_told["do_sample"]) == (9, True)
    else:
        assert told["temperature"] == 0
    assert (drawn_told["temperature"], drawn_told["top_p"]) == (0.7, 0.9)
    assert drawn_told["seed"] == (18 if kind == "tgi" else 17)
    if kind in ("vllm", "sglang"):
        neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0}
        assert told.items() >= {**neutral, "frequency_penalty": 0, "n": 1}.items()
        assert (told["stop_token_ids"], told["max_tokens"]) == ([STOP], 9)
        assert told["prompt"] == [40, 41]
    if kind == "llamacpp":
        assert (told["samplers"], told["cache_prompt"]) == (["temperature"], False)
        assert drawn_told["samplers"] == ["temperature", "top_p"]
        assert (told["prompt"], told["n_predict"]) == ([40, 41], 9)


@pytest.mark.parametrize("deed", ["500", "503", "429", "cut", "garbage", "few"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_recovers_costs_nothing(kind, deed):
    """The dialect is found out first (one completion); then every answer fails once or twice."""
    with serving(fake(kind, misbehave=["ok", deed, deed, deed, "ok", deed])) as server:
        assert ask(server, requests(40, 41, 42, 43), attempts=6) == expected(40, 41, 42, 43)
        assert not server.misbehave


def test_a_server_that_stalls_is_asked_again():
    with serving(fake(misbehave=["ok", "stall"])) as server:
        assert ask(server, requests(40, 41), timeout=0.3) == expected(40, 41)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("500", "status 500: try later"),
        ("429", "status 429"),
        ("cut", "IncompleteRead"),
        ("garbage", "not JSON (<html>busy</html>)"),
        ("few", "0 choices instead of one"),
        ("stall", "no data for 0.2 s"),
    ],
)
def test_a_server_that_does_not_recover_is_given_up_with_its_reason(deed, said):
    with serving(fake(misbehave=["ok", deed])) as server:
        server.misbehave = ["ok"]
        engine = ServerEngine(settings(server, attempts=3, timeout=0.2))
        with engine.open(expert()) as generate:
            assert generate(requests(40), GREEDY) == expected(40)
            server.misbehave = [deed, "*"]
            before = len(server.completions())
            with pytest.raises(UnreachableError) as error:
                generate(requests(41), GREEDY)
            assert len(server.completions()) - before == 3
            # The same engine goes on once the server does.
            server.misbehave = []
            server.released.set()
            assert generate(requests(41, 42), GREEDY) == expected(41, 42)
    message = str(error.value)
    assert said in message
    for part in (server.url, "/v1/completions", "3 attempts", "server.timeout", "resumes"):
        assert part in message
    assert "\n" not in message


def test_one_failure_ends_the_batch_without_waiting_for_the_others():
    def brain(prompt, room, model):
        if prompt[0] != 41:
            time.sleep(3)
        return counting(prompt, room, model)

    with serving(fake("llamacpp", brain=brain)) as server:
        engine = ServerEngine(settings(server, attempts=1))
        started = time.monotonic()
        with engine.open(expert()) as generate:
            server.misbehave = ["ok", "ok", "500", "*"]
            with pytest.raises(UserError):
                generate(requests(42, 43, 41), GREEDY)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(("deed", "advice"), [("401", "LR_EXP_API_KEY"), ("400", "server.model")])
def test_a_refusal_is_not_asked_again(deed, advice):
    with serving(fake("llamacpp", misbehave=[deed, "*"])) as server:
        with pytest.raises(UserError, match=advice):
            ask(server, requests(40))
        assert len(server.completions()) == 1


def test_nobody_there():
    with serving(fake()) as server:
        pass
    with pytest.raises(UnreachableError, match="no server listens"):
        ask(server, requests(40), attempts=2)


def test_waits_double_and_a_servers_wish_is_heard(monkeypatch):
    waits = []
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(http.threading.Event, "wait", lambda self, seconds: waits.append(seconds))
    monkeypatch.setattr(http.random, "uniform", lambda low, high: high)
    endpoint = http.Endpoint("http://127.0.0.1:1", timeout=1, attempts=9, connections=1)
    with pytest.raises(UnreachableError):
        endpoint.get("/v1/models")
    assert waits == [1.5, 3, 6, 12, 24, 48, 90, 90]
    assert [http._retry_after(text) for text in ("7", None, "soon", "nan", "-1", "1e9")] == [
        *(7.0, 0.0, 0.0, 0.0, 0.0),
        http.MAX_WAIT_SECONDS,
    ]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
def test_another_tokenizer_is_found_before_anything_is_written(kind):
    other = tiny_tokenizer(special=("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|pad|>"))
    with serving(fake(kind, tokenizer=other)) as server:
        with pytest.raises(UserError, match=r"id 25[78] is '<\|im_(end|start)\|>' there") as error:
            ask(server, requests(40))
        assert len(server.completions()) <= 1  # the one that finds out how it speaks
    assert "the expert tiny" in str(error.value)
    assert "'served'" in str(error.value)


def test_a_server_that_does_not_say_what_its_ids_mean_is_warned_of(caplog):
    with serving(fake(detokenizes=False)) as server:
        assert ask(server, requests(40)) == expected(40)
    assert "cannot be verified" in caplog.text


@pytest.mark.parametrize("kind", ["vllm", "llamacpp", "text"])
def test_a_server_that_reads_prompts_otherwise_is_refused(kind):
    """A BOS token that it adds would make another prompt of it, which nothing else shows."""

    class Adding(FakeServer):
        def post(self, path, body):
            status, reply = super().post(path, body)
            if "usage" in reply:
                reply["usage"]["prompt_tokens"] += 1
            if "tokens_evaluated" in reply:
                reply["tokens_evaluated"] += 1
            return status, reply

    with (
        serving(Adding(kind, tiny_tokenizer(), counting, (STOP,))) as server,
        pytest.raises(UserError, match="as 4 tokens"),
    ):
        ask(server, requests(40))


def test_tgi_must_read_the_prompts_text_as_the_same_ids():
    class Adding(FakeServer):
        def ids(self, text):
            return [1, *super().ids(text)]

    with (
        serving(Adding("tgi", tiny_tokenizer(), counting, (STOP,))) as server,
        pytest.raises(UserError, match="adds its own tokens"),
    ):
        ask(server, requests(40))


@pytest.mark.parametrize("kind", WITH_IDS)
def test_only_the_experts_stop_tokens_end_an_answer(kind):
    """A server's generation config knows ends that are none here: it is asked to go on."""

    def brain(prompt, room, _model):
        if OTHER_STOP not in prompt:
            return [50, 51, OTHER_STOP][:room]
        return [52, STOP][:room]

    with serving(fake(kind, brain=brain, stop_ids=(STOP, OTHER_STOP))) as server:
        assert ask(server, requests(40)) == [Decoded([50, 51, OTHER_STOP, 52, STOP], True)]
        assert ask(server, requests(40, room=4)) == [Decoded([50, 51, OTHER_STOP, 52], False)]


def test_ids_beyond_the_stop_token_or_the_room_are_cut_off():
    """llama.cpp goes on past the limit where a character is not complete."""

    def brain(prompt, room, _model):
        return [50, STOP, 51] if prompt[0] == 40 else [50] * (room + 2)

    with serving(fake("llamacpp", brain=brain)) as server:
        answers = ask(server, requests(40, 41, room=3))
    assert answers == [Decoded([50, STOP], True), Decoded([50] * 3, False)]


def test_a_context_that_is_too_short_is_named():
    with (
        serving(fake("llamacpp", brain=lambda prompt, room, _: [50, 51])) as server,
        pytest.raises(UserError, match=r"after 2 of 40 tokens.*context is too short"),
    ):
        ask(server, requests(40))


def test_the_key_goes_out_with_every_request_and_nowhere_else(monkeypatch, caplog):
    monkeypatch.setenv(http.KEY, "s3cret-key-0123456789")
    with serving(fake(misbehave=["ok", "500", "*"])) as server, caplog.at_level(logging.DEBUG):
        with pytest.raises(UserError) as error:
            ask(server, requests(40), attempts=2)
        assert {headers.get("Authorization") for headers in server.headers} == {
            "Bearer s3cret-key-0123456789"
        }
    assert "s3cret" not in str(error.value) + caplog.text


def test_text_that_has_two_readings_is_counted(caplog):
    """The server wrote other ids than its text is read as: it counted more of them."""

    def brain(prompt, room, _model):
        return [50, 51, 52][:room] if prompt[0] == 41 else counting(prompt, room, "")

    class Counting(FakeServer):
        def post(self, path, body):
            status, reply = super().post(path, body)
            if status == 200 and body["prompt"].startswith(self.text([41])):
                reply["usage"]["completion_tokens"] += 1
            return status, reply

    with serving(Counting("text", tiny_tokenizer(), brain, (STOP,))) as server:
        assert ask(server, requests(40, 42)) == expected(40, 42)
        assert "supports only text" in caplog.text
        assert "were recovered from text" not in caplog.text
        ask(server, requests(40, 41, room=3))
    assert "the token ids of 1 answers were recovered from text" in caplog.text


def test_a_prompt_that_is_not_its_text_is_refused_where_text_is_all():
    with (
        serving(fake("text", tokenizer=tiny_tokenizer())) as server,
        pytest.raises(UserError, match="accepts only text"),
    ):
        ask(server, [Request([255, 40], 5, 0)], reader=replace(expert(), tokenizer=_Merging()))


class _Merging:
    """A tokenizer that reads a text as other ids than it came from."""

    eos_token_id = STOP

    def __init__(self):
        self._own = tiny_tokenizer()

    def __getattr__(self, name):
        return getattr(self._own, name)

    def __call__(self, text, **told):
        return {"input_ids": self._own(text, **told)["input_ids"][1:]}


def test_one_model_is_taken_and_of_several_one_must_be_named():
    class Several(FakeServer):
        def get(self, path):
            reply = super().get(path)
            if path == "/v1/models":
                reply["data"].append({"id": "second", "owned_by": "vllm", "parent": None})
            return reply

    with serving(Several("vllm", tiny_tokenizer(), counting, (STOP,))) as server:
        with pytest.raises(UserError, match=r"server\.model is required.*served, second"):
            ask(server, requests(40))
        assert ask(server, requests(40), model="served") == expected(40)
        with pytest.raises(UserError, match="does not exist"):
            ask(server, requests(40), model="third")


@pytest.mark.parametrize(
    ("kind", "identity"),
    [
        ("vllm", {"kind": "vllm", "model": "served", "version": "0.33.0"}),
        ("sglang", {"kind": "sglang", "model": "served", "version": "0.6.1"}),
        ("llamacpp", {"kind": "llamacpp", "model": "served", "version": "b11434-0"}),
        ("tgi", {"kind": "tgi", "model": "served", "version": "3.3.5"}),
        ("text", {"kind": "someone", "model": "served", "version": None}),
    ],
)
def test_a_server_is_known_by_what_it_reports_and_remembered(kind, identity, tmp_path, caplog):
    place = tmp_path / "engines" / "one.json"
    with serving(fake(kind)) as server:
        first = remembered_identity(ServerEngine(settings(server)), place)
    assert first.items() >= {"engine": "server", **identity}.items()
    gone = ServerEngine(settings(server, attempts=1))
    assert remembered_identity(gone, place) == first
    assert "no server listens" in caplog.text
    with pytest.raises(UnreachableError):
        remembered_identity(gone, tmp_path / "other.json")


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_adapter_is_loaded_by_its_content_and_let_go(kind, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    asked_of = []

    def brain(prompt, room, model):
        asked_of.append((model, dict(server.adapters)))
        return counting(prompt, room, model)

    with serving(fake(kind, brain=brain)) as server:
        engine = ServerEngine(settings(server))
        names = []
        for content in (b"weights", b"others", b"weights"):
            (tmp_path / "adapter_model.safetensors").write_bytes(content)
            with engine.open(expert(), tmp_path) as generate:
                assert generate(requests(40), GREEDY) == expected(40)
            name, loaded = asked_of[-1]
            assert loaded == {name: str(tmp_path)}
            assert server.adapters == {}
            names.append(name)
    assert names[0] == names[2] != names[1]


def test_a_server_that_cannot_take_an_adapter_says_so(tmp_path):
    with (
        serving(fake("llamacpp")) as server,
        pytest.raises(UserError, match=r"evaluator\.engine=transformers"),
        ServerEngine(settings(server)).open(expert(), tmp_path),
    ):
        pass
    closed = {"vllm": "/v1/load_lora_adapter"}

    class Closed(FakeServer):
        def post(self, path, body):
            return (404, {}) if path in closed.values() else super().post(path, body)

    with (
        serving(Closed("vllm", tiny_tokenizer(), counting, (STOP,))) as server,
        pytest.raises(UserError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ServerEngine(settings(server)).open(expert(), tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host", "http://", "http://user@host", "http://h?key=1"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UserError, match=r"server\.url"):
        ServerSettings(url=url)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_as_it_is_usually_written(ending):
    with serving(fake()) as server:
        server.url += ending
        assert ask(server, requests(40)) == expected(40)
