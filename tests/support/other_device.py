"""A pretended GPU: it refuses to mix devices as CUDA does, and counts where the host waits for it.

Its tensors are CPU tensors that report `cuda:0`. A wrapper class like torch's FakeTensor would need
a build of torch with CUDA for `.to("cuda")` and for the backward pass. Here one mode answers the
calls from Python (moves, factories, a tensor's device), and another one follows the kernels: what a
kernel returns is where its inputs are. What CUDA's kernels do in themselves is not seen.
"""

import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")
_aten = torch.ops.aten
_grouped = torch._C._group_tensors_by_device_and_dtype
_READS_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_WHOLE = (_aten.item.default, _aten.is_nonzero.default)  # inference mode does not decompose them


class MixedDevicesError(AssertionError):
    """No RuntimeError, as torch's is: probes of a model take one for a property of the model."""


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> "_Generator":
        made = super().__new__(cls, "cpu")
        made.is_on_gpu = torch.device(device) == GPU
        return made


class OtherDevice(TorchFunctionMode):
    """The GPU exists within this context. `waits` counts waits, as "OPERATION in FUNCTION"."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.creates = False  # whether the current call creates tensors on the GPU
        # Weak references to the GPU's storages, which keep their addresses from being reused.
        self._storages: dict[int, StorageWeakRef] = {}

    def __enter__(self) -> "OtherDevice":
        self._entered = ExitStack()
        self._entered.enter_context(patch("torch.Generator", _Generator))
        self._entered.enter_context(patch(f"torch._C.{_grouped.__name__}", _grouped_by_device))
        self._entered.enter_context(_Kernels(self))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.close()

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._storages

    def place(self, tensor: Tensor, on_gpu: bool) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages.pop(storage._cdata, None)
        if on_gpu:
            self._storages[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def wait(self, operation: str) -> None:
        frame: Any = sys._getframe(1)
        while (module := frame.f_globals["__name__"]).startswith("torch.") or module == __name__:
            frame = frame.f_back
        self.waits[f"{operation} in {module}.{frame.f_code.co_name}"] += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        on_gpu = any(map(self.holds, _tensors(args, kwargs)))
        if func == Tensor.device.__get__ and on_gpu:
            return GPU
        if func is Tensor.to or func is Tensor.cpu:
            return self._to(*args, **kwargs) if func is Tensor.to else self._to(*args, "cpu")
        if (device := kwargs.get("device")) is not None:
            on_gpu = torch.device(device) == GPU
            kwargs["device"] = "cpu" if on_gpu else device
        if on_gpu and func in (torch.tensor, torch.as_tensor, Tensor.new_tensor, Tensor.tolist):
            self.wait(func.__name__)
        other = on_gpu != getattr(kwargs.get("generator"), "is_on_gpu", on_gpu)
        if other or (on_gpu and func in (Tensor.numpy, Tensor.__array__)):
            raise MixedDevicesError(f"{func.__name__}: a tensor or generator of the other device")
        before, self.creates = self.creates, on_gpu
        try:
            result = func(*args, **kwargs)
        finally:
            self.creates = before
        return result if device is None else self.place(result, on_gpu)

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        args = tuple(GPU if isinstance(a, Tensor) and self.holds(a) else a for a in args)
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        was_on_gpu = self.holds(tensor)
        on_gpu = was_on_gpu if device is None else device == GPU
        if not (on_gpu or was_on_gpu):
            return tensor.to(*args, **kwargs)
        if on_gpu != was_on_gpu:
            if was_on_gpu or not non_blocking:
                self.wait("to GPU" if on_gpu else "to host")
            tensor = self.place(tensor.clone(), on_gpu)
        return tensor if dtype is None else self.place(tensor.to(dtype), on_gpu)


class _Kernels(TorchDispatchMode):
    def __init__(self, gpu: OtherDevice) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = _tensors(args, kwargs)
        host = [one for one in tensors if not self._gpu.holds(one)]
        # CUDA reads a number of the host, a tensor without dimensions, but writes to none.
        wrong = [one for one in host if one.dim() or (func._schema.is_mutable and one is args[0])]
        on_gpu = len(host) < len(tensors)
        is_copy = func is _aten.copy_.default and on_gpu and wrong
        if on_gpu and wrong and not is_copy:
            shapes = [tuple(one.shape) for one in wrong]
            raise MixedDevicesError(f"{func} of a tensor of the GPU with {shapes} of the host")
        masks = func is not _aten.index.Tensor or any(t.dtype == torch.bool for t in tensors[1:])
        reads_values = (_READS_VALUES & {*func.tags} and masks) or func in _WHOLE
        if on_gpu and (is_copy or reads_values):
            self._gpu.wait(func.overloadpacket.__name__)
        result = func(*args, **(kwargs or {}))
        from_nothing = not tensors or func is _aten.lift_fresh.default
        if (on_gpu and not is_copy) or (from_nothing and self._gpu.creates):
            for one in _tensors(result):
                self._gpu.place(one, True)
        return result


def _grouped_by_device(tensors: Any, with_indices: bool = False) -> Any:
    """Groups for an optimizer's kernels: with the device that their tensors report."""
    groups = _grouped(tensors, with_indices).items()
    return {(group[0][0][0].device, dtype): group for (_, dtype), group in groups}


def _tensors(*values: Any) -> list[Tensor]:
    """The tensors in these values, lists, tuples and dictionaries."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            found += _tensors(*(value.values() if isinstance(value, dict) else value))
    return found
