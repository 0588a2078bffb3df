"""The expert's answers from vLLM in this process: token ids in, token ids out.

Knows vLLM's public interface (`LLM.generate`), imported when it is asked for. vLLM pins other
versions of torch and transformers than development here does: it lives in an environment of its
own (the extra `vllm`).
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, first_line
from lr_exp.inference.decoding import Decoded
from lr_exp.inference.engines import Generate, Request, Sampling, adapter_name, ended
from lr_exp.inference.out_of_memory import free_memory
from lr_exp.models.loading import LanguageModel
from lr_exp.models.locating import ModelSource

_LONGEST_RANK = 64  # of an adapter; vLLM reserves memory for it


class VllmEngine:
    """vLLM on this machine's GPU."""

    def __init__(self, source: ModelSource, dtype: str) -> None:
        """Args:
        source: the expert.
        dtype: what it computes in.

        Raises:
            UserError: vLLM is not installed, or cannot read such a model.
        """
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "engine=vllm: vLLM is not installed here. It pins versions of its own: make an "
                "environment for it and install the package there with its extra "
                "(pip install 'lr_exp[vllm]'), or serve the model with vLLM elsewhere and set "
                "engine=server."
            )
        if source.gguf_file is not None or source.init == "random":
            raise UserError(
                f"engine=vllm reads a model folder with weights, and {source.name} is a GGUF file "
                "or has random weights; use engine=transformers, or a server for it."
            )
        self._source = source
        self._dtype = dtype
        self._llm: Any = None
        self._takes_adapters = False

    @property
    def identity(self) -> dict[str, Any]:
        """The versions of vLLM and torch, and the precision."""
        versions = {}
        for name in ("vllm", "torch"):
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                versions[name] = "unknown"
        return {"engine": "vllm", "dtype": self._dtype, **versions}

    @contextmanager
    def open(self, expert: LanguageModel, adapter: Path | None = None) -> Iterator[Generate]:
        """See `Engine.open`; the model stays loaded until `close`."""
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        llm = self._loaded(expert, adapter is not None)
        extra = {}
        if adapter is not None:
            name = adapter_name(adapter)
            number = int(name[-7:], 16) + 1  # tells vLLM's caches apart; above 0
            extra = {"lora_request": LoRARequest(name, number, str(adapter))}

        def generate(requests: Sequence[Request], sampling: Sampling) -> list[Decoded]:
            # With the end tokens ignored, only `stop_token_ids` end an answer.
            parameters = [
                SamplingParams(
                    n=1,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=-1,
                    min_p=0.0,
                    repetition_penalty=1.0,
                    presence_penalty=0.0,
                    frequency_penalty=0.0,
                    seed=one.seed,
                    max_tokens=one.room,
                    stop_token_ids=list(expert.stop_ids),
                    ignore_eos=True,
                    detokenize=False,
                )
                for one in requests
            ]
            prompts = [{"prompt_token_ids": list(one.prompt)} for one in requests]  # TokensPrompt
            outputs = llm.generate(prompts, parameters, use_tqdm=False, **extra)
            if len(outputs) != len(requests):
                raise RuntimeError(f"vLLM gave {len(outputs)} answers to {len(requests)} prompts")
            return [
                ended(list(output.outputs[0].token_ids), expert.stop_ids, one.room)
                for output, one in zip(outputs, requests, strict=True)
            ]

        yield generate

    def _loaded(self, expert: LanguageModel, with_adapters: bool) -> Any:
        """The model, loaded again where it was loaded without room for adapters."""
        if self._llm is not None and with_adapters and not self._takes_adapters:
            self.close()
        if self._llm is None:
            from vllm import LLM  # pyright: ignore[reportMissingImports]

            lora = {"enable_lora": True, "max_lora_rank": _LONGEST_RANK} if with_adapters else {}
            try:
                self._llm = LLM(
                    model=str(self._source.folder),
                    dtype=self._dtype,
                    trust_remote_code=self._source.trust_remote_code,
                    # The repository's temperature, top-p and penalties must not reach any call.
                    generation_config="vllm",
                    max_model_len=expert.context,
                    seed=0,
                    **lora,
                )
            except Exception as error:  # memory, drivers, architectures: each in its own words
                raise UserError(
                    f"engine=vllm: vLLM cannot load {self._source.name} ({first_line(error)}); "
                    "free the GPU's memory, or use engine=transformers."
                ) from error
            self._takes_adapters = with_adapters
        return self._llm

    def close(self) -> None:
        """Lets go of the model; the process that computed for it ends with it."""
        self._llm = None
        free_memory()
