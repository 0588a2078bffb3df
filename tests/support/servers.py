"""Fake servers with the APIs of vLLM, SGLang and llama.cpp, and of one that returns only text.

Their replies have the real formats; the answers come from a function of token ids. Failures can be
injected.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# (prompt ids, maximum of new ids, model name) -> new ids, including the stop token
Continue = Callable[[Sequence[int], int, str], list[int]]

GENERATING = ("/v1/completions", "/completion")


@dataclass
class FakeServer:
    """A server's state, and a record of its requests.

    Args:
        kind: vllm | sglang | llamacpp | text.
        failures: outcomes of the first completions: 400, 401, 429, 500, 503, cut, garbage, few,
            stall, ok. `*` repeats the one before it forever.
    """

    kind: str
    tokenizer: Any
    continue_prompt: Continue
    stop_ids: Sequence[int]
    failures: list[str] = field(default_factory=list)
    detokenizes: bool = True
    loads_adapters: bool = True
    added_tokens: int = 0
    more_models: Sequence[str] = ()
    model: str = "served"
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)
    concurrent: int = 0
    max_concurrent: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def completions(self) -> list[dict[str, Any]]:
        return [body for path, body in self.requests if path in GENERATING]

    def next_outcome(self) -> str:
        """The outcome of this completion."""
        with self._lock:
            if not self.failures:
                return "ok"
            if len(self.failures) > 1 and self.failures[1] == "*":
                return self.failures[0]
            return self.failures.pop(0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self.concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self.concurrent)
        try:
            yield
        finally:
            with self._lock:
                self.concurrent -= 1

    def text(self, ids: Sequence[int], *, special: bool = True) -> str:
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )

    def get(self, path: str) -> Any:
        """The reply to a GET request; None for 404."""
        owner = self.kind if self.kind in ("vllm", "sglang", "llamacpp") else "someone"
        if path == "/v1/models":
            models = (self.model, *self.more_models)
            cards = [{"id": name, "owned_by": owner, "parent": None} for name in models]
            cards += [{"id": n, "owned_by": owner, "parent": self.model} for n in self.adapters]
            return {"object": "list", "data": cards}
        return {
            ("vllm", "/version"): {"version": "0.33.0"},
            ("sglang", "/get_server_info"): {"version": "0.6.1"},
            ("llamacpp", "/props"): {"build_info": "b11434-0", "model_path": "/m.gguf"},
        }.get((self.kind, path))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and reply to a POST request."""
        text_keys = {"vllm": "prompt", "sglang": "text", "llamacpp": "content"}
        if path == "/detokenize" and self.detokenizes and self.kind in text_keys:
            return 200, {text_keys[self.kind]: self.text(body["tokens"])}
        prefix = {"vllm": "/v1/", "sglang": "/"}.get(self.kind) if self.loads_adapters else None
        if prefix and path == f"{prefix}load_lora_adapter":
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, "Success: LoRA adapter added successfully."
        if prefix and path == f"{prefix}unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return 200, "Success: LoRA adapter removed successfully."
        if path == "/v1/completions" and self.kind in ("vllm", "sglang", "text", "llamacpp"):
            return self._completion(body)
        if path == "/completion" and self.kind == "llamacpp":
            ids = self.continue_prompt(body["prompt"], body["n_predict"], self.model)
            stop = "eos" if ids[-1] in self.stop_ids else "limit"
            return 200, {
                "content": self.text(ids, special=False),
                "tokens": ids if body.get("return_tokens") else [],
                "tokens_evaluated": len(body["prompt"]) + self.added_tokens,
                "stop_type": stop,
            }
        return 404, {"detail": "Not Found"}

    def _completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] not in (self.model, *self.adapters):
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        prompt = body["prompt"]
        if self.kind == "text":
            return 422, {"detail": "Unexpected fields in the request"}
        ids = self.continue_prompt(prompt, body["max_tokens"], body["model"])
        stopped = ids[-1] in self.stop_ids
        choice: dict[str, Any] = {
            "index": 0,
            "text": self.text(ids[:-1] if stopped else ids, special=True),
            "finish_reason": "stop" if stopped else "length",
        }
        if body.get("return_token_ids") and self.kind != "llamacpp":
            choice |= {"token_ids": ids, "prompt_token_ids": prompt}
        usage = {"prompt_tokens": len(prompt) + self.added_tokens, "completion_tokens": len(ids)}
        return 200, {"object": "text_completion", "choices": [choice], "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        reply = self.fake.get(self.path)
        self._send(404 if reply is None else 200, {} if reply is None else reply)

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake.requests.append((self.path, body))
        fake.headers.append(dict(self.headers))
        with fake.counted():
            outcome = fake.next_outcome() if self.path in GENERATING else "ok"
            if outcome == "stall":
                fake.released.wait(30)
            if outcome.isdigit():
                self._send(int(outcome), {"error": {"message": "try later"}})
                return
            status, reply = fake.post(self.path, body)
            if outcome == "few":
                reply = {key: [] if type(item) is list else item for key, item in reply.items()}
            self._send(status, reply, outcome)

    def _send(self, status: int, reply: Any, outcome: str = "ok") -> None:
        data = b"<html>busy</html>" if outcome == "garbage" else json.dumps(reply).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status in (429, 500, 503):
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if outcome == "cut" else data)
        except OSError:  # the client closed the connection
            self.close_connection = True
        if outcome == "cut":
            self.close_connection = True


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """Runs a server on the loopback interface and sets its `url`."""
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False  # do not wait for stalled requests
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
