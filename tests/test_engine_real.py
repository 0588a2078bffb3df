"""Rollouts on a real local server: llama.cpp's `llama-server`.

Needs `make smollm2` and a `llama-server` on the PATH or in LLAMA_SERVER; skipped otherwise.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
import torch

from lr_exp.config.settings import ServerSettings
from lr_exp.errors import UserError
from lr_exp.inference.engines import Request
from lr_exp.inference.engines.server import ServerEngine
from lr_exp.inference.generation import single_decoding
from lr_exp.models import loading
from lr_exp.models.prompts import render_prompt
from tests.support.sampling import load_micro, smollm2_source

pytestmark = pytest.mark.slow

LLAMA_SERVER = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
MAX_NEW_TOKENS = 48
NAMES = ("Tom", "Mia", "Leo", "Ana", "Ben", "Zoe", "Kim", "Raj")


@contextmanager
def llama_cpp(weights: Path, folder: Path) -> Iterator[str]:
    """Starts a server and yields its address once it is healthy."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(LLAMA_SERVER), "-m", str(weights), "--host", "127.0.0.1", "--port", str(port)]
    command += ["-c", "4096", "-np", "4", "-t", "2", "--offline"]
    command += ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]  # fp32 cache, as here
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    try:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx2.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            except httpx2.HTTPError:
                pass
            time.sleep(0.2)
        else:
            text = log.read_text("utf-8", errors="replace")
            pytest.fail(f"the server did not start: {text[-2000:]}")
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def smollm2():
    """The source, the model, prompts, and the model's greedy answers."""
    if LLAMA_SERVER is None:
        pytest.skip("there is no llama-server here")
    source = smollm2_source()
    expert = loading.load(source, device="cpu", dtype="float32")
    prompts = [
        render_prompt(
            expert.tokenizer,
            f"{name} has {7 + 5 * n} pens and buys {3 + 4 * n} more. How many are there?",
            "Please reason step by step.",
        )
        for n, name in enumerate(NAMES)
    ]
    decode_batch = single_decoding(expert, prompts, max_new_tokens=MAX_NEW_TOKENS)
    answers = decode_batch.decode(0, range(len(prompts)), 0)
    return source, expert, prompts, answers


def dequantized(weights: Path, target: Path) -> Path:
    """Writes a GGUF file with the same weights in fp32."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(weights)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            value = 0 if field.name == "general.file_type" else field.contents()  # 0: fp32
            writer.add_key_value(field.name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def answered(address: str, source, prompts):
    engine = ServerEngine(ServerSettings(url=address, concurrency=4))
    assert engine.identity["kind"] == "llamacpp"
    assert engine.identity["version"]
    with engine.open(loading.load_without_weights(source)) as generate:
        return generate([Request(prompt, MAX_NEW_TOKENS, 0) for prompt in prompts])


def test_llama_cpp_generates_the_experts_ids(smollm2, tmp_path):
    """With the same fp32 weights, all answers are equal token by token."""
    source, _, prompts, answers = smollm2
    weights = dequantized(source.folder / source.gguf_file, tmp_path / "fp32.gguf")
    try:
        with llama_cpp(weights, tmp_path) as address:
            assert answered(address, source, prompts) == answers
    finally:
        weights.unlink()  # 540 MB


def test_llama_cpp_with_quantized_weights_generates_likely_tokens(smollm2, tmp_path):
    """It multiplies 4-bit weights with 8-bit activations, so it may choose another of two close
    tokens.
    """
    source, expert, prompts, answers = smollm2
    with llama_cpp(source.folder / source.gguf_file, tmp_path) as address:
        served = answered(address, source, prompts)
        engine = ServerEngine(ServerSettings(url=address, concurrency=4))
        with engine.open(expert) as generate:
            hot = {"temperature": 1.0, "top_p": 0.95}
            samples = [generate([Request(prompts[0], 12, seed, **hot)] * 2) for seed in (1, 2, 3)]
        with (
            pytest.raises(UserError, match=r"id \d+ is .* there and .* here"),
            ServerEngine(ServerSettings(url=address)).open(load_micro()),
        ):
            pass
    assert all(first == second for first, second in samples)  # only the seed matters
    assert len({tuple(first.token_ids) for first, _ in samples}) == 3
    tokens = different = 0
    for prompt, answer in zip(prompts, served, strict=True):
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.inference_mode():
            logits = expert.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        log_probs = logits.log_softmax(-1)
        chosen = log_probs.gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        behind = log_probs.max(-1).values - chosen
        tokens, different = tokens + len(behind), different + int((behind > 0).sum())
        assert behind.max() < 1  # nats
    equal = sum(own == other for own, other in zip(answers, served, strict=True))
    print(f"\n{equal} of {len(answers)} answers equal, {different} of {tokens} tokens differ")
    assert different < 0.05 * tokens
