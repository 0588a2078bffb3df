"""Resolves the `device` and `dtype` settings and selects this process's GPU.

torch is imported inside the functions because `choose_gpu` must run before torch is loaded.
"""

import logging
import os
import platform
import re
from functools import cache

from lr_exp import distributed
from lr_exp.config.settings import Settings
from lr_exp.errors import UserError, counted

log = logging.getLogger(__name__)


def choose_gpu(settings: Settings) -> None:
    """Restricts this process to one GPU through `CUDA_VISIBLE_DEVICES`.

    With `device=cuda:N` that is GPU N; with several ranks on a host it is the one at the local
    rank. Has no effect once CUDA is initialized, so all cells of a multirun share one GPU.

    Raises UserError: a host has more ranks than GPUs.
    """
    kind, _, number = settings.device.partition(":")
    count = distributed.local_world_size()
    if kind == "cuda" and number.isdigit():
        if count > 1:
            raise UserError(
                f"device={settings.device} is one GPU, but this host runs {count} processes of "
                "this run. Set device=cuda to give each process its own GPU."
            )
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", number)
        settings.device = "cuda"
    elif kind in ("auto", "cuda") and count > 1:
        _select_gpu_by_local_rank()


@cache  # a second call would index into the single GPU that the first one left visible
def _select_gpu_by_local_rank() -> None:
    rank, count = distributed.local_rank(), distributed.local_world_size()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return  # GPUs are disabled
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(count)]
    if len(gpus) < count:
        raise UserError(
            f"{count} processes of this run are on one host, but CUDA_VISIBLE_DEVICES={visible} "
            f"lists {len(gpus)} GPUs; start one process per GPU (torchrun --nproc-per-node)."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[rank]


def resolve_device(device: str) -> str:
    """Validates a device; `auto` becomes `cuda` if there is a GPU, else `cpu`."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    # torch's other device types either compute nothing (meta) or are untested.
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
        raise UserError(f"device={device} is not a device: use auto, cpu, cuda or cuda:N.")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={device}: torch sees no GPU here; use device=cpu or auto.")
    if resolved.index is not None:
        last = torch.cuda.device_count() - 1
        if resolved.index > last:
            raise UserError(f"device={device}: torch sees GPUs 0 to {last} here; use one of them.")
        torch.cuda.set_device(resolved)  # libraries that use plain `cuda` mean the current device
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """`auto` becomes bfloat16 on a GPU with native bfloat16, else float32.

    An explicit bfloat16 also becomes float32 on a GPU without it. float16 is no substitute: its
    range ends at 65504 and it rounds values below 6e-8 to 0, which breaks adapter gradients and
    some models' hidden states.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    if dtype not in ("auto", "bfloat16") or not on_gpu:
        return "float32" if dtype == "auto" else dtype
    # Emulated bfloat16 is slower than float32.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    log.warning(
        "%s has no bfloat16; using float32, which needs twice the memory (dtype=float16 fits, but "
        "may overflow).",
        torch.cuda.get_device_name(device),
    )
    return "float32"


def device_name(device: str) -> str:
    """Name of the GPU, or the CPU's architecture and number of threads."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {counted(torch.get_num_threads(), 'thread')}"
