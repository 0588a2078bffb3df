"""Runs vLLM in this process.

vLLM pins its own versions of torch and transformers, so it needs a separate environment (the extra
`vllm`) and is imported only when it is used.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, first_line
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate, Request, adapter_name, truncated
from lr_exp.inference.memory import free_memory
from lr_exp.models.loading import LanguageModel
from lr_exp.models.locating import ModelSource

_MAX_LORA_RANK = 64  # vLLM reserves memory for it


class VllmEngine:
    def __init__(self, source: ModelSource, dtype: str) -> None:
        """Raises UserError: vLLM is not installed, or does not support the model's format."""
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "engine=vllm: vLLM is not installed. It pins its own versions of torch: run "
                "pip install 'lr_exp[vllm]' in a separate environment, or serve the model with "
                "vLLM elsewhere and set engine=server."
            )
        if source.gguf_file is not None or source.init == "random":
            raise UserError(
                f"engine=vllm needs a model folder with weights, but {source.name} is a GGUF file "
                "or has random weights; use engine=transformers or engine=server."
            )
        self._source, self._dtype = source, dtype
        self._llm: Any = None
        self._supports_adapters = False

    @property
    def identity(self) -> dict[str, Any]:
        """See `Engine.identity`: the versions of vLLM and torch, and the dtype."""
        versions = {name: version(name) for name in ("vllm", "torch")}
        return {"engine": "vllm", "dtype": self._dtype, **versions}

    @contextmanager
    def open(self, expert: LanguageModel, adapter: Path | None = None) -> Iterator[Generate]:
        """See `Engine.open`; the model stays loaded until `close`."""
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        llm = self._loaded(expert, adapter is not None)
        lora = {}
        if adapter is not None:
            name = adapter_name(adapter)
            number = int(name[-7:], 16) + 1  # vLLM's cache key; must be above 0
            lora = {"lora_request": LoRARequest(name, number, str(adapter))}

        def generate(requests: Sequence[Request]) -> list[Decoded]:
            # With `ignore_eos`, only `stop_token_ids` end an answer.
            parameters = [
                SamplingParams(
                    n=1,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    top_k=-1,
                    min_p=0.0,
                    repetition_penalty=1.0,
                    presence_penalty=0.0,
                    frequency_penalty=0.0,
                    seed=request.seed,
                    max_tokens=request.max_new_tokens,
                    stop_token_ids=list(expert.stop_ids),
                    ignore_eos=True,
                    detokenize=False,
                )
                for request in requests
            ]
            prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
            outputs = llm.generate(prompts, parameters, use_tqdm=False, **lora)
            return [
                truncated(output.outputs[0].token_ids, expert.stop_ids, request.max_new_tokens)
                for output, request in zip(outputs, requests, strict=True)
            ]

        yield generate

    def _loaded(self, expert: LanguageModel, with_adapters: bool) -> Any:
        """Loads the model; reloads it if adapters are needed but were not enabled."""
        if self._llm is not None and with_adapters and not self._supports_adapters:
            self.close()
        if self._llm is None:
            from vllm import LLM  # pyright: ignore[reportMissingImports]

            lora = {"enable_lora": True, "max_lora_rank": _MAX_LORA_RANK} if with_adapters else {}
            try:
                self._llm = LLM(
                    model=str(self._source.folder),
                    dtype=self._dtype,
                    trust_remote_code=self._source.trust_remote_code,
                    # Ignore the repository's temperature, top-p and penalties.
                    generation_config="vllm",
                    max_model_len=expert.context,
                    seed=0,
                    **lora,
                )
            except Exception as error:  # memory, drivers, architectures raise various exceptions
                raise UserError(
                    f"engine=vllm: vLLM cannot load {self._source.name} ({first_line(error)}); "
                    "free the GPU's memory, or use engine=transformers."
                ) from error
            self._supports_adapters = with_adapters
        return self._llm

    def close(self) -> None:
        """Frees the model, which also ends vLLM's worker process."""
        self._llm = None
        free_memory()
