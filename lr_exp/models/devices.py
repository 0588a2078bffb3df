"""Devices and precision: which GPU this process uses, and what `auto` resolves to.

torch is imported inside the functions, because `choose_gpu` must run before torch is loaded.
"""

import logging
import os
import re
from functools import cache

from lr_exp import distributed
from lr_exp.config.settings import Settings
from lr_exp.errors import UserError

log = logging.getLogger(__name__)


def choose_gpu(settings: Settings) -> None:
    """Makes `device=cuda:N` the only GPU this process sees: libraries that say `cuda` mean it.

    Of several ranks on a host each sees one of its own. Takes effect before a GPU is first used,
    so in a multirun all cells use the first one's.

    Raises:
        UserError: a host has more ranks than GPUs.
    """
    kind, _, number = settings.device.partition(":")
    if kind == "cuda" and number.isdigit():
        if distributed.local_world_size() > 1:
            raise UserError(
                f"device={settings.device} is one GPU, but this host runs "
                f"{distributed.local_world_size()} processes of this run. Set device=cuda to give "
                "each process its own GPU."
            )
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", number)
        settings.device = "cuda"
    elif kind in ("auto", "cuda") and distributed.local_world_size() > 1:
        _take_own()


@cache
def _take_own() -> None:
    """Leaves this rank one of its host's GPUs; once a process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else []
    if names == [""]:
        return  # none is to be used
    if names and len(names) < distributed.local_world_size():
        raise UserError(
            f"{distributed.local_world_size()} processes of this run are on one host, where "
            f"CUDA_VISIBLE_DEVICES={visible} shows {len(names)} GPUs: start as many as there are "
            "(torchrun --nproc-per-node)."
        )
    own = names[distributed.local_rank()] if names else str(distributed.local_rank())
    os.environ["CUDA_VISIBLE_DEVICES"] = own


def resolve_device(device: str) -> str:
    """`auto` becomes the first GPU where there is one, else the CPU."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    # Of torch's other kinds some compute nothing (meta), none has been tried.
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
        raise UserError(f"device={device} is not a device: use auto, cpu, cuda or cuda:N.")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={device}: torch sees no GPU here; use device=cpu or auto.")
    if resolved.type == "cuda" and resolved.index is not None:
        count = torch.cuda.device_count()
        if resolved.index >= count:
            raise UserError(
                f"device={device}: torch sees GPUs 0 to {count - 1} here; use one of them."
            )
        torch.cuda.set_device(resolved)  # libraries that say `cuda` mean the current one
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """`auto` becomes bfloat16 on a GPU that computes in it, else float32.

    A GPU without it gets float32, whoever asked: float16 reaches only to 65504 and rounds what is
    below 6e-8 to 0, which adapters' gradients and some models' hidden states do not survive.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    if dtype not in ("auto", "bfloat16") or not on_gpu:
        return "float32" if dtype == "auto" else dtype
    # Emulated bfloat16 is slower than float32.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    log.warning(
        "%s has no bfloat16: float32 is taken, which needs twice the memory (dtype=float16 fits, "
        "but may overflow).",
        torch.cuda.get_device_name(device),
    )
    return "float32"


def device_name(device: str) -> str:
    """The machine that computed, for the record."""
    import platform

    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
