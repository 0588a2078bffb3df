"""Whole runs whose answers come from an engine: the same supervision, the same grades, resumed."""

import json
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from lr_exp.config.settings import ModelSettings
from lr_exp.errors import UserError
from lr_exp.inference.decoding import decode_greedily
from lr_exp.inference.engines import Request, Sampling, http
from lr_exp.inference.engines.in_process import VllmEngine
from lr_exp.models import loading, locating
from lr_exp.sampler import rollout, score

from .servers import FakeServer, serving
from .test_distiller import load_expert
from .test_end_to_end import go, results, settings_for
from .tiny import tiny_model

QUICK = ("data.max_questions=12", "evaluator.max_examples=8", "benchmarks=[micro_add]")
SAMPLE = (*QUICK, "stages=[sample]")


class Micro:
    """The micro expert as a server would run it: one prompt at a time, with adapters."""

    def __init__(self):
        self.expert = load_expert()
        self.stop_ids = self.expert.stop_ids
        self._models = {}
        self._known = {}  # what was asked before; runs ask the same
        self._lock = threading.Lock()
        self.server = None

    def __call__(self, prompt, room, name):
        with self._lock:
            asked = (self._adapter(name), tuple(prompt), room)
            if asked not in self._known:
                (answer,) = decode_greedily(
                    self._model(asked[0]),
                    [prompt],
                    max_new_tokens=room,
                    stop_ids=self.stop_ids,
                    vocabulary_size=self.expert.vocabulary_size,
                )
                self._known[asked] = answer.token_ids
            return list(self._known[asked])

    def _adapter(self, name):
        return self.server.adapters.get(name) if self.server else None

    def _model(self, adapter):
        from lr_exp.distiller import distill

        if adapter is None:
            return self.expert.model
        if adapter not in self._models:
            self._models[adapter] = distill.attach_adapter(load_expert(), adapter)
        return self._models[adapter]


@pytest.fixture(scope="module")
def micro():
    return Micro()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.01)


def a_server(micro, kind="vllm", **changes):
    server = FakeServer(kind, micro.expert.tokenizer, micro, micro.stop_ids, **changes)
    micro.server = server
    return serving(server)


def on(server, part="sampler"):
    return (f"{part}.engine=server", f"server.url={server.url}", "server.attempts=3")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run on transformers; (its folder, its summary)."""
    tmp_path = tmp_path_factory.mktemp("plain")
    return tmp_path, go(tmp_path, "plain", *QUICK)


@pytest.mark.parametrize("kind", ["vllm", "llamacpp", "text"])
def test_an_engine_gives_the_supervision_that_the_expert_itself_gives(
    kind, tmp_path, plain, micro, monkeypatch
):
    with a_server(micro, kind) as server:
        loads = []
        load = loading.load
        monkeypatch.setattr(
            loading,
            "load",
            lambda source, **kw: loads.append(source.role) or load(source, **kw),
        )
        roll_out = rollout.roll_out

        def without_weights(*args, **told):
            assert loads == []
            return roll_out(*args, **told)

        monkeypatch.setattr(rollout, "roll_out", without_weights)
        summary = go(tmp_path, "run", *SAMPLE, *on(server))
        assert len(server.completions()) >= 12
    assert summary["sample"]["supervision"] == plain[1]["sample"]["supervision"]
    assert loads == ["expert", "amateur"]  # to score with
    assert summary["engines"]["sampler"]["engine"] == "server"
    assert "engines" not in plain[1]


def test_the_tuned_expert_is_evaluated_on_a_server_that_is_given_its_adapter(plain, micro):
    """The same store: only the answers are made again, at addresses of their own."""
    folder, summary = plain
    with a_server(micro) as server:
        other = go(folder, "served", *QUICK, *on(server, "evaluator"))
        names = {body["model"] for body in server.completions()}
    assert results(other) == results(summary)
    assert other["sample"]["reused"]
    assert other["distill"]["reused"]
    assert not other["evaluate"]["reused"]
    assert len(names) == 2
    assert server.adapters == {}


def test_answers_of_an_engine_have_an_address_of_their_own_by_what_it_reports(
    tmp_path, plain, micro, caplog
):
    def rollouts(root):
        return {path.name for path in (root / "store" / "rollout").iterdir() if path.is_dir()}

    with a_server(micro) as server:
        go(tmp_path, "one", *SAMPLE, *on(server))
        first = rollouts(tmp_path)
    assert not first & rollouts(plain[0])
    with a_server(micro, "sglang") as other:
        go(tmp_path, "two", *SAMPLE, *on(other))
    assert len(rollouts(tmp_path)) == 2
    # The first server is away now: what it wrote is found all the same.
    again = go(tmp_path, "three", *SAMPLE, "beta=0.5", *on(server))
    assert again["sample"]["seconds_by_stage"]["rollout"] > 0
    assert len(rollouts(tmp_path)) == 2
    assert "no server listens" in caplog.text


def test_a_server_that_breaks_down_midway_loses_the_batch_in_flight_only(tmp_path, plain, micro):
    words = (*SAMPLE, "sampler.batch_size=2")
    reference = go(tmp_path, "reference", *words)
    with a_server(micro, "llamacpp", misbehave=["ok"] * 5 + ["500"]) as server:
        server.misbehave += ["500"] * 100
        with pytest.raises(UserError, match="resumes"):
            go(tmp_path, "run", *words, *on(server), "server.concurrency=1")
        before = len({json.dumps(body["prompt"]) for body in server.completions()})
        assert before == 6
        server.misbehave = []
        asked = len(server.completions())
        summary = go(tmp_path, "run", *words, *on(server))
        assert len(server.completions()) - asked == 12 - 4
    assert summary["sample"]["supervision"] == reference["sample"]["supervision"]


def test_drawn_answers_depend_on_the_seed_alone(tmp_path, micro):
    """Not on batches: each answer has a seed of its own."""
    words = (*SAMPLE, "method=rejection_sft", "data.max_questions=3", "method.max_new_tokens=8")
    told = {}
    for name, more in (("a", ()), ("b", ("sampler.batch_size=2",)), ("c", ("seed=1",))):
        with a_server(micro) as server:
            go(tmp_path, name, *words, *more, *on(server))
            # The first completion is the one that finds out how the server speaks.
            told[name] = sorted(
                (body["prompt"], body["seed"], body["temperature"])
                for body in server.completions()[1:]
            )
    assert told["a"] == told["b"]
    assert len({seed for _, seed, _ in told["a"]}) == 12  # 3 questions, 4 answers each
    assert {temperature for *_, temperature in told["a"]} == {1.0}
    assert not {seed for _, seed, _ in told["a"]} & {seed for _, seed, _ in told["c"]}


def test_another_model_with_the_same_tokenizer_is_found_by_its_tokens(tmp_path, micro, caplog):
    """Ids cannot tell it from the expert, what it writes does."""
    nine = micro.expert.tokenizer("9")["input_ids"][0]
    server = FakeServer("vllm", micro.expert.tokenizer, lambda *told: [nine] * told[1], [1])
    with serving(server):
        go(tmp_path, "run", *SAMPLE, "data.max_questions=2", *on(server))
    assert "would have chosen only" in caplog.text


def test_the_own_share_of_the_experts_own_answers_is_whole(plain):
    (steps,) = (path for path in (plain[0] / "store" / "score").iterdir() if path.is_dir())
    assert score.own_share(steps) > 0.999


@pytest.mark.parametrize("kind", ["micro", "tiny", "tiny with two ends"])
def test_a_model_without_weights_is_described_as_with_them(kind, tmp_path):
    settings = ModelSettings(name="m", package="lr_exp", package_path="micro/models/expert")
    if kind != "micro":
        folder = tiny_model(tmp_path)
        if "two" in kind:
            config = folder / "generation_config.json"
            told = json.loads(config.read_text("utf-8")) | {"eos_token_id": [256, 259]}
            config.write_text(json.dumps(told), "utf-8")
        settings = ModelSettings(name="m", path=str(folder))
    source = locating.locate(settings, "expert")
    bare = loading.without_weights(source)
    loaded = loading.load(source, device="cpu", dtype="float32")
    assert bare.model is None
    for field in ("name", "stop_ids", "vocabulary_size", "context"):
        assert getattr(bare, field) == getattr(loaded, field)
    if "two" in kind:
        assert {256, 259} <= set(bare.stop_ids)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler.engine=server"], r"sampler\.engine=server needs.*server\.url"),
        (["evaluator.engine=server"], r"evaluator\.engine=server needs.*server\.url"),
        (["sampler.engine=sglang"], r"sampler\.engine='sglang' is not known"),
        (["evaluator.engine=vllm", "evaluator.gap=greedy"], r"evaluator\.gap=greedy"),
        (["evaluator.engine=vllm", "evaluator.decoder=contrastive"], r"decoder=contrastive"),
        (["server.url=here"], r"server\.url='here'"),
        (["server.concurrency=0"], r"server\.concurrency=0 is out of range"),
        (["server.timeout=0"], r"server\.timeout=0"),
        (["server.attempts=0"], r"server\.attempts=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, said, tmp_path):
    with pytest.raises(UserError, match=said):
        settings_for(tmp_path, *words)


# vLLM in this process, by a module with its public names and shapes: the real one needs a GPU.


class StubLlm:
    made: ClassVar[list["StubLlm"]] = []
    micro: ClassVar[Any] = None

    def __init__(self, **told):
        self.told = told
        self.asked = []
        StubLlm.made.append(self)

    def generate(self, prompts, sampling_params, *, use_tqdm, lora_request=None):
        assert use_tqdm is False
        self.asked.append((prompts, sampling_params, lora_request))
        micro = StubLlm.micro
        outputs = []
        for prompt, chosen in zip(prompts, sampling_params, strict=True):
            ids = micro(prompt["prompt_token_ids"], chosen.max_tokens, "base")
            one = SimpleNamespace(token_ids=tuple(ids), text="", finish_reason="stop")
            outputs.append(SimpleNamespace(outputs=[one], finished=True))
        return outputs


@pytest.fixture
def stub(monkeypatch, micro):
    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = StubLlm, SimpleNamespace
    request = ModuleType("vllm.lora.request")
    request.LoRARequest = lambda name, number, path: SimpleNamespace(
        name=name, id=number, path=path
    )
    vllm.__spec__ = SimpleNamespace()  # found by find_spec
    for name, module in (
        ("vllm", vllm),
        ("vllm.lora", ModuleType("vllm.lora")),
        ("vllm.lora.request", request),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    StubLlm.made, StubLlm.micro = [], micro
    return StubLlm


def test_vllm_gives_the_supervision_that_the_expert_itself_gives(tmp_path, plain, stub):
    summary = go(tmp_path, "run", *SAMPLE, "sampler.engine=vllm")
    assert summary["sample"]["supervision"] == plain[1]["sample"]["supervision"]
    (llm,) = stub.made
    assert llm.told["generation_config"] == "vllm"
    assert llm.told["max_model_len"] == 256
    assert "enable_lora" not in llm.told
    prompts, chosen, adapter = llm.asked[0]
    assert adapter is None
    assert all(isinstance(one, int) for one in prompts[0]["prompt_token_ids"])
    told = vars(chosen[0])
    neutral = {"temperature": 0, "top_p": 1, "top_k": -1, "repetition_penalty": 1, "n": 1}
    assert told.items() >= {**neutral, "detokenize": False, "ignore_eos": True}.items()
    assert told["stop_token_ids"] == [1]


def test_vllm_is_loaded_again_for_adapters_and_let_go(stub, micro, tmp_path):
    source = locating.locate(
        ModelSettings(name="m", package="lr_exp", package_path="micro/models/expert"), "expert"
    )
    engine = VllmEngine(source, "float32")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    asked = [Request([5, 6], 4, 0)]
    for adapter in (None, None, tmp_path, None):
        with engine.open(micro.expert, adapter) as generate:
            assert len(generate(asked, Sampling())) == 1
    assert [bool(llm.told.get("enable_lora")) for llm in stub.made] == [False, True]
    lora = stub.made[1].asked[0][2]
    assert lora.path == str(tmp_path)
    assert lora.id > 0
    assert stub.made[1].asked[1][2] is None
    engine.close()
    with engine.open(micro.expert):
        pass
    assert len(stub.made) == 3


def test_vllm_that_is_not_installed_names_its_extra(tmp_path):
    with pytest.raises(UserError, match=r"lr_exp\[vllm\]"):
        go(tmp_path, "run", *SAMPLE, "sampler.engine=vllm")
