"""Description and peak performance of the machine.

Known GPUs have the peaks of their data sheets (dense); other devices are measured.
"""

import os
import platform
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class Peaks:
    """Peak performance of a device."""

    flops: float  # floating point operations per second, in the precision in use
    bytes: float  # of memory bandwidth, per second
    source: str  # data sheet | measured


_REPEATS = 6

# bf16 tensor core FLOP/s, and bytes/s.
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
    """The hardware and versions that results depend on, and the date."""
    description = {
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
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def peaks(device: str, dtype: str, *, size: int = 1536) -> Peaks:
    """Peaks of a device: from the data sheet for a known GPU in half precision, else measured."""
    if torch.device(device).type == "cuda" and dtype != "float32":
        published = _find_data_sheet(torch.cuda.get_device_name(device))
        if published is not None:
            return published
    return measured_peaks(device, dtype, size=size)


def measured_peaks(device: str, dtype: str, *, size: int) -> Peaks:
    """The best rates of products of `size` x `size` matrices and of reading memory."""
    return Peaks(_matrix_rate(device, dtype, size), _read_rate(device, size), "measured")


def data_sheet(name: str) -> Peaks:
    """Published peaks of a GPU in bfloat16; raises ValueError for an unknown one."""
    published = _find_data_sheet(name)
    if published is None:
        raise ValueError(f"unknown GPU {name!r}; known: {', '.join(_GPUS)}")
    return published


def _find_data_sheet(name: str) -> Peaks | None:
    for gpu, (flops, rate) in _GPUS.items():
        if all(part in name for part in gpu.split()):
            return Peaks(flops, rate, "data sheet")
    return None


def highest(*measured: Peaks) -> Peaks:
    """Maximum of several measurements: a shared machine is slower at times."""
    return replace(
        measured[0],
        flops=max(peak.flops for peak in measured),
        bytes=max(peak.bytes for peak in measured),
    )


def _matrix_rate(device: str, dtype: str, size: int) -> float:
    """Best operations per second of square matrix products, also with reordered weights."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    products = [lambda: a @ a]
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        weight = torch.ops.mkldnn._reorder_linear_weight(a)
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], ""))
    with torch.inference_mode():
        return (
            2
            * size**3
            / min(_seconds(product, device) for product in products for _ in range(_REPEATS))
        )


def _read_rate(device: str, size: int) -> float:
    """Best bytes per second read by a sum."""
    a = torch.ones(64 * size * size // 4, device=device)
    return 4 * len(a) / min(_seconds(a.sum, device) for _ in range(_REPEATS))


def _seconds(work: Any, device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Waits for a GPU to finish its work."""
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
