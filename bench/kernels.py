"""Times and profiles decoding steps and training passes of fixed shapes, eager or compiled."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from transformers import StaticCache

from bench import stages
from bench.machine import synchronize
from bench.pairs import Pair
from lr_exp.config.settings import DistillerSettings
from lr_exp.distiller.batches import build_batch, plan_batches
from lr_exp.distiller.trainer import pass_losses
from lr_exp.inference.kv_cache import buffered_cache
from lr_exp.inference.memory import peak_memory_bytes, reset_peak_memory
from lr_exp.models.compiling import compiled, compiled_passes
from lr_exp.models.probing import cache_argument

Variant = str | None  # a mode of `compile`; None: eager

_WARM_UP = 5  # passes before the timed ones; compilation is in the first of them
_LONGEST = 15  # kernels in a profile
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


def decoding_seconds(
    pair: Pair, variant: Variant, *, rows: int, prompt: int, steps: int
) -> dict[str, float]:
    """Seconds to read one token of each row: eager in the project's cache, else in a static one."""
    model, capacity = pair.expert.model, prompt + _WARM_UP + steps
    run: Any = model
    cache: Any = buffered_cache(model.config, capacity)[0]
    if variant is not None:
        run = compiled(model, variant)
        cache = StaticCache(config=model.config, max_cache_len=capacity)
    mask = torch.ones(rows, capacity, dtype=torch.int64, device=model.device)

    def read(run: Any, ids: torch.Tensor, start: int) -> torch.Tensor:
        end = start + ids.shape[1]
        logits = run(
            input_ids=ids,
            attention_mask=mask[:, :end] if variant is None else mask,
            position_ids=torch.arange(start, end, device=model.device).expand(rows, -1),
            use_cache=True,
            logits_to_keep=1,
            **{str(cache_argument(model)): cache},
        ).logits
        return logits[:, -1].argmax(-1, keepdim=True)

    with torch.inference_mode():
        ids = torch.arange(rows * prompt, device=model.device).reshape(rows, -1) % 1000
        token = read(model, ids, 0)

        def decode_one(index: int) -> None:
            nonlocal token
            token = read(run, token, prompt + index)

        return {"seconds": _seconds_per_call(decode_one, steps, str(model.device))}


def training_batch(pair: Pair, new_tokens: int, kept: int) -> dict[str, torch.Tensor]:
    """The first pass of an optimizer step of 16 neighboring kept steps."""
    supervision = stages.synthetic(pair, new_tokens=new_tokens, kept=kept)
    plan = plan_batches(supervision, DistillerSettings(order="trajectories"), 0)
    batch = build_batch(supervision, plan[0], 4096)["passes"][0]
    return {name: one.to(pair.expert.model.device) for name, one in batch.items()}


def training_pass(pair: Pair, model: Any, batch: dict[str, torch.Tensor], run: Any = None) -> None:
    """A forward and a backward pass of a model with LoRA; `run` is its compiled forward pass."""
    losses, _ = pass_losses(run or model, batch, pair.expert.vocabulary_size, stages.LOSS)
    losses.mean().backward()
    model.zero_grad(set_to_none=run is None)


def training_seconds(
    pair: Pair, variant: Variant, batch: dict[str, torch.Tensor], *, passes: int
) -> dict[str, float]:
    """Seconds of a `training_pass`, and the peak memory."""
    reset_peak_memory()
    device = str(pair.expert.model.device)
    with stages.lora(pair) as model:
        run = variant and compiled_passes(model, variant)
        seconds = _seconds_per_call(
            lambda _: training_pass(pair, model, batch, run), passes, device
        )
    return {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes(device)}


def _seconds_per_call(work: Callable[[int], None], calls: int, device: str) -> float:
    start = 0.0
    for index in range(_WARM_UP + calls):
        if index == _WARM_UP:
            synchronize(device)
            start = time.perf_counter()
        work(index)
    synchronize(device)
    return (time.perf_counter() - start) / calls


def profile(
    work: Callable[[], Any], passes: int, device: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time, launches and the share of time without a kernel, per pass; and the longest kernels.

    The profiler slows the host down, so the time of the work is measured without it. On a CPU,
    operators stand for kernels.

    Raises:
        RuntimeError: the profiler sees no kernel.
    """
    on_gpu = torch.device(device).type == "cuda"
    work()
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    seconds = time.perf_counter() - start
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
        synchronize(device)
    averages = profiler.key_averages()
    kernels = [
        {
            "kernel": one.key[:80],
            "calls": one.count / passes,
            "seconds": (one.self_device_time_total if on_gpu else one.self_cpu_time_total)
            / (1e6 * passes),
        }
        for one in averages
        if (one.device_type.name == "CUDA") == on_gpu and not one.is_user_annotation
    ]
    busy = sum(one["seconds"] for one in kernels)
    if not busy:
        raise RuntimeError("the profiler sees no kernel")
    facts = {
        "seconds": seconds / passes,
        "launches": sum(one.count for one in averages if one.key in _LAUNCHES) / passes,
        "idle_share": max(0.0, 1 - busy * passes / seconds) if on_gpu else None,
    }
    longest = sorted(kernels, key=lambda one: -one["seconds"])[:_LONGEST]
    return facts, [one | {"share_of_busy_time": one["seconds"] / busy} for one in longest]
