"""The machine: what it is, and what it can do at most.

Knows the operating system and torch. Peaks of known GPUs are those of the maker's data sheets
(dense, without sparsity); what is not in the table is measured.
"""

import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class Peaks:
    """What a device can do at most."""

    flops: float  # floating point operations a second, in the precision that is used
    bytes: float  # of memory, a second
    source: str  # data sheet | measured


_TRIES = 6

# bf16 tensor-core FLOP/s and bytes/s.
_GPUS = {
    "H200": (989e12, 4.8e12),
    "H100 PCIe": (756e12, 2.0e12),
    "H100 NVL": (835e12, 3.9e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-80GB": (312e12, 2.04e12),
    "A100": (312e12, 1.55e12),
    "L40S": (362e12, 0.864e12),
    "RTX 4090": (165e12, 1.01e12),
}


def describe(device: str = "cpu") -> dict[str, Any]:
    """What a figure depends on beside the code."""
    told = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if torch.device(device).type == "cuda":
        told["gpu"] = torch.cuda.get_device_name(device)
    return told


def peaks(device: str, dtype: str, *, size: int = 1536) -> Peaks:
    """The device's limits: of a known GPU in half precision as published, else measured."""
    if torch.device(device).type == "cuda" and dtype != "float32":
        known = _of_data_sheet(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    return Peaks(_matrix_rate(device, dtype, size), _read_rate(device, size), "measured")


def data_sheet(name: str) -> Peaks:
    """A GPU's peaks in bfloat16, as its maker gives them; ValueError for one that is not known."""
    found = _of_data_sheet(name)
    if found is None:
        raise ValueError(f"no data sheet of {name!r} here; there are {', '.join(_GPUS)}")
    return found


def _of_data_sheet(name: str) -> Peaks | None:
    for known, (flops, rate) in _GPUS.items():
        if all(part in name for part in known.split()):
            return Peaks(flops, rate, "data sheet")
    return None


def highest(*measured: Peaks) -> Peaks:
    """The most of what was measured at several times: a shared machine is slower at some."""
    first = measured[0]
    return replace(
        first, flops=max(one.flops for one in measured), bytes=max(one.bytes for one in measured)
    )


def _matrix_rate(device: str, dtype: str, size: int) -> float:
    """Operations a second of products of square matrices, on arranged weights too: the best."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    ways = [lambda: a @ a]
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        weight = torch.ops.mkldnn._reorder_linear_weight(a)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], ""))
    with torch.inference_mode():
        return 2 * size**3 / min(_seconds(way, device) for way in ways for _ in range(_TRIES))


def _read_rate(device: str, size: int) -> float:
    """Bytes a second that a sum reads: the best of some tries."""
    a = torch.ones(64 * size * size // 4, device=device)
    return 4 * len(a) / min(_seconds(a.sum, device) for _ in range(_TRIES))


def _seconds(work: Any, device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Waits until a GPU has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def as_dict(limits: Peaks) -> dict[str, Any]:
    """For the record."""
    return asdict(limits)
