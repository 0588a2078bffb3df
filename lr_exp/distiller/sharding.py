"""Shards a model's frozen weights over the ranks (FSDP2), for an expert larger than one device.

The trainable weights stay replicated, so that optimizers, gradients and checkpoints are the same as
without sharding.
"""

import torch
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lr_exp import distributed
from lr_exp.errors import UserError


def shard(model: PeftModel, device: str) -> None:
    """Shards the weights that need no gradient over the devices of all ranks.

    The model is on the CPU, the same on every rank; its layers move to the device one by one. Every
    later forward and backward pass is a collective call.

    Raises UserError: the architecture does not name its layers.
    """
    layers = _layers(model)
    mesh = init_device_mesh(torch.device(device).type, (distributed.world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=_tuned(layer))
    # The root holds embeddings, the last norm and the head, and is the module that is called.
    fully_shard(model, mesh=mesh, ignored_params=_tuned(model))
    for parameter in _tuned(model):  # fully_shard neither shards nor moves them
        parameter.data = parameter.data.to(device)


def _layers(model: PeftModel) -> list[torch.nn.Module]:
    base = model.get_base_model()
    names = set(getattr(base, "_no_split_modules", None) or ())
    layers = [module for module in base.modules() if type(module).__name__ in names]
    if not layers:
        raise UserError(
            f"distiller.parallel=fsdp: {type(base).__name__} does not declare its layers "
            "(_no_split_modules), so it cannot be sharded; set distiller.parallel=ddp."
        )
    return layers


def _tuned(module: torch.nn.Module) -> set[torch.nn.Parameter]:
    return {parameter for parameter in module.parameters() if parameter.requires_grad}
