"""Whole runs with an engine give the same supervision and grades, and can be resumed."""

import json
import sys
import threading
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from lr_exp.config.settings import ModelSettings
from lr_exp.errors import UserError
from lr_exp.inference.engines import Request, http, in_process
from lr_exp.inference.engines.in_process import VllmEngine
from lr_exp.inference.generation import single_decoding
from lr_exp.models import loading, locating
from lr_exp.sampler import rollout
from tests.support.demo import go, results
from tests.support.sampling import load_micro, micro_source
from tests.support.servers import FakeServer, serving
from tests.support.tiny import tiny_model

QUICK = (
    "data.count=6",
    "sampler.batch_size=2",
    "evaluator.max_examples=4",
    "benchmarks=[micro_add]",
)
SAMPLE = (*QUICK, "stages=[sample]")


class Micro:
    """Continues prompts with the micro expert and its adapters, one at a time."""

    def __init__(self):
        self.expert = load_micro()
        self.stop_ids = self.expert.stop_ids
        self._models = {}
        self._answers = {}  # cached, because several runs send the same requests
        self._lock = threading.Lock()
        self.server = None

    def __call__(self, prompt, max_new_tokens, name):
        with self._lock:
            key = (self._adapter(name), tuple(prompt), max_new_tokens)
            if key not in self._answers:
                (answer,) = single_decoding(
                    replace(self.expert, model=self._model(key[0])),
                    [prompt],
                    max_new_tokens=max_new_tokens,
                ).decode(0, [0], 0)
                self._answers[key] = answer.token_ids
            return list(self._answers[key])

    def _adapter(self, name):
        return self.server.adapters.get(name) if self.server else None

    def _model(self, adapter):
        from lr_exp.distiller import distill

        if adapter is None:
            return self.expert.model
        if adapter not in self._models:
            self._models[adapter] = distill.attach_adapter(load_micro(), adapter)
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
    """A run without an engine: its folder and its summary."""
    tmp_path = tmp_path_factory.mktemp("plain")
    return tmp_path, go(tmp_path, "plain", *QUICK)


@pytest.mark.integration
def test_servers_give_the_same_supervision_at_addresses_of_their_own(
    tmp_path, plain, micro, monkeypatch, caplog
):
    """Nothing is loaded before the scores, and a stopped server's answers are found."""
    loads = []
    load, roll_out = loading.load, rollout.roll_out

    def without_weights(*args, **kwargs):
        assert loads == []
        return roll_out(*args, **kwargs)

    monkeypatch.setattr(
        loading, "load", lambda source, **kw: loads.append(source.role) or load(source, **kw)
    )
    monkeypatch.setattr(rollout, "roll_out", without_weights)

    def rollouts(root):
        return {path.name for path in (root / "store" / "rollout").iterdir() if path.is_dir()}

    for kind in ("vllm", "llamacpp"):
        loads.clear()
        with a_server(micro, kind) as server:
            summary = go(tmp_path, kind, *SAMPLE, *on(server))
            assert len(server.completions()) >= 6
        assert summary["sample"]["supervision"] == plain[1]["sample"]["supervision"]
        assert summary["engines"]["sampler"]["engine"] == "server"
        assert loads == ["expert", "amateur"]  # for scoring
    assert "engines" not in plain[1]
    assert len(rollouts(tmp_path)) == 2
    assert not rollouts(tmp_path) & rollouts(plain[0])
    again = go(tmp_path, "again", *SAMPLE, "beta=0.5", *on(server))
    assert again["sample"]["seconds_by_stage"]["rollout"] > 0
    assert len(rollouts(tmp_path)) == 2
    assert "no server listens" in caplog.text
    assert "most probable ones of the expert" not in caplog.text


@pytest.mark.integration
def test_the_tuned_expert_is_evaluated_on_a_server_with_its_adapter(plain, micro):
    """With the same store, only the answers are generated again, at new addresses."""
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


@pytest.mark.integration
def test_samples_of_the_evaluation_come_from_the_engine(plain, micro):
    """Each with a seed of its own, at the temperature; greedy answers are requested once."""
    folder, _ = plain
    words = ("evaluator.samples=3", "evaluator.temperature=0.7", "stages=[evaluate]")
    with a_server(micro) as server:
        summary = go(folder, "sampled", *QUICK, *words, *on(server, "evaluator"))
        requests = server.completions()
    assert summary["evaluate"]["samples"]["samples"] == 3
    sampled = [body for body in requests if body["temperature"] == 0.7]
    assert len(sampled) == len({body["seed"] for body in sampled}) == 12  # 4 questions
    assert len({json.dumps(body["prompt"]) for body in sampled}) == 4


@pytest.mark.integration
def test_a_server_failure_loses_only_the_batch_in_flight(tmp_path, plain, micro):
    with a_server(micro, "llamacpp", failures=["ok"] * 3 + ["500"]) as server:
        server.failures += ["500"] * 100
        with pytest.raises(UserError, match="resumes"):
            go(tmp_path, "run", *SAMPLE, *on(server), "server.concurrency=1")
        before = len({json.dumps(body["prompt"]) for body in server.completions()})
        assert before == 4
        server.failures = []
        count = len(server.completions())
        summary = go(tmp_path, "run", *SAMPLE, *on(server))
        assert len(server.completions()) - count == 6 - 2
    assert summary["sample"]["supervision"] == plain[1]["sample"]["supervision"]


@pytest.mark.integration
def test_sampled_answers_depend_only_on_the_seed(tmp_path, micro):
    """Each answer has its own seed, so batches do not matter."""
    overrides = (*SAMPLE, "method=rejection_sft", "data.max_questions=3", "method.max_new_tokens=8")
    requests = {}
    for name, more in (("a", ()), ("b", ("sampler.batch_size=5",)), ("c", ("seed=1",))):
        with a_server(micro) as server:
            go(tmp_path, name, *overrides, *more, *on(server))
            # The first completion only detects the dialect.
            requests[name] = sorted(
                (body["prompt"], body["seed"], body["temperature"])
                for body in server.completions()[1:]
            )
    assert requests["a"] == requests["b"]
    assert len({seed for _, seed, _ in requests["a"]}) == 12  # 3 questions, 4 answers each
    assert {temperature for *_, temperature in requests["a"]} == {1.0}
    assert not {seed for _, seed, _ in requests["a"]} & {seed for _, seed, _ in requests["c"]}


@pytest.mark.integration
def test_another_model_with_the_same_tokenizer_is_detected_by_scoring(tmp_path, micro, caplog):
    """The vocabulary check cannot distinguish it from the expert."""
    nine = micro.expert.tokenizer("9")["input_ids"][0]
    server = FakeServer("vllm", micro.expert.tokenizer, lambda *args: [nine] * args[1], [1])
    with serving(server):
        words = (*SAMPLE, "data.max_questions=2", "sampler.max_new_tokens=16", *on(server))
        go(tmp_path, "run", *words)
    assert "most probable ones of the expert" in caplog.text


@pytest.mark.parametrize("kind", ["micro", "tiny", "tiny with two ends"])
def test_a_model_without_weights_has_the_same_description(kind, tmp_path):
    source = micro_source()
    if kind != "micro":
        folder = tiny_model(tmp_path)
        if "two" in kind:
            config = folder / "generation_config.json"
            content = json.loads(config.read_text("utf-8")) | {"eos_token_id": [256, 259]}
            config.write_text(json.dumps(content), "utf-8")
        source = locating.locate(ModelSettings(name="m", path=str(folder)), "expert")
    bare = loading.load_without_weights(source)
    loaded = loading.load(source, device="cpu", dtype="float32")
    assert bare.model is None
    for field in ("name", "stop_ids", "vocabulary_size", "context"):
        assert getattr(bare, field) == getattr(loaded, field)
    if "two" in kind:
        assert {256, 259} <= set(bare.stop_ids)


# A stub of the `vllm` module, because the real one needs a GPU.


class StubLlm:
    instances: ClassVar[list["StubLlm"]] = []
    micro: ClassVar[Any] = None

    def __init__(self, **settings):
        self.settings = settings
        self.calls = []
        StubLlm.instances.append(self)

    def generate(self, prompts, sampling_params, *, use_tqdm, lora_request=None):
        assert use_tqdm is False
        self.calls.append((prompts, sampling_params, lora_request))
        micro = StubLlm.micro
        outputs = []
        for prompt, parameters in zip(prompts, sampling_params, strict=True):
            ids = micro(prompt["prompt_token_ids"], parameters.max_tokens, "base")
            output = SimpleNamespace(token_ids=tuple(ids), text="", finish_reason="stop")
            outputs.append(SimpleNamespace(outputs=[output], finished=True))
        return outputs


@pytest.fixture
def stub(monkeypatch, micro):
    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = StubLlm, SimpleNamespace
    request = ModuleType("vllm.lora.request")
    request.LoRARequest = lambda name, number, path: SimpleNamespace(id=number, path=path)
    vllm.__spec__ = SimpleNamespace()  # required by find_spec
    modules = {"vllm": vllm, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(in_process, "version", lambda name: "1.0")
    StubLlm.instances, StubLlm.micro = [], micro
    return StubLlm


@pytest.mark.integration
def test_vllm_gives_the_same_supervision_as_the_expert(tmp_path, plain, stub):
    summary = go(tmp_path, "run", *SAMPLE, "sampler.engine=vllm")
    assert summary["sample"]["supervision"] == plain[1]["sample"]["supervision"]
    (llm,) = stub.instances
    assert llm.settings["generation_config"] == "vllm"
    assert llm.settings["max_model_len"] == 256
    assert "enable_lora" not in llm.settings
    prompts, parameters, adapter = llm.calls[0]
    assert adapter is None
    assert all(isinstance(i, int) for i in prompts[0]["prompt_token_ids"])
    sampling = vars(parameters[0])
    neutral = {"temperature": 0, "top_p": 1, "top_k": -1, "repetition_penalty": 1, "n": 1}
    assert sampling.items() >= {**neutral, "detokenize": False, "ignore_eos": True}.items()
    assert sampling["stop_token_ids"] == [1]


def test_vllm_is_reloaded_for_adapters_and_closed(stub, micro, tmp_path):
    engine = VllmEngine(micro_source(), "float32")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    requests = [Request([5, 6], 4, 0)]
    for adapter in (None, None, tmp_path, None):
        with engine.open(micro.expert, adapter) as generate:
            assert len(generate(requests)) == 1
    assert [bool(llm.settings.get("enable_lora")) for llm in stub.instances] == [False, True]
    lora = stub.instances[1].calls[0][2]
    assert lora.path == str(tmp_path)
    assert lora.id > 0
    assert stub.instances[1].calls[1][2] is None
    engine.close()
    with engine.open(micro.expert):
        pass
    assert len(stub.instances) == 3


@pytest.mark.integration
def test_missing_vllm_names_its_extra(tmp_path):
    with pytest.raises(UserError, match=r"lr_exp\[vllm\]"):
        go(tmp_path, "run", *SAMPLE, "sampler.engine=vllm")
