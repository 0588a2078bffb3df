"""Which GPU this process sees. Knows settings, ranks and the environment; imports no torch."""

import os
from functools import cache

from lr_exp import ranks
from lr_exp.errors import UserError
from lr_exp.settings import Settings


def choose_gpu(settings: Settings) -> None:
    """Makes `device=cuda:N` the only GPU this process sees: libraries that say `cuda` mean it.

    Of several ranks on a host each sees one of its own. Takes effect before a GPU is first used,
    so in a multirun all cells use the first one's.

    Raises:
        UserError: a host has more ranks than GPUs.
    """
    kind, _, number = settings.device.partition(":")
    if kind == "cuda" and number.isdigit():
        if ranks.local_count() > 1:
            raise UserError(
                f"device={settings.device} is one GPU, and this host has {ranks.local_count()} "
                "processes of this run: write device=cuda, and each takes one."
            )
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", number)
        settings.device = "cuda"
    elif kind in ("auto", "cuda") and ranks.local_count() > 1:
        _take_own()


@cache
def _take_own() -> None:
    """Leaves this rank one of its host's GPUs; once a process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else []
    if names == [""]:
        return  # none is to be used
    if names and len(names) < ranks.local_count():
        raise UserError(
            f"{ranks.local_count()} processes of this run are on one host, where "
            f"CUDA_VISIBLE_DEVICES={visible} shows {len(names)} GPUs: start as many as there are "
            "(torchrun --nproc-per-node)."
        )
    own = names[ranks.local_rank()] if names else str(ranks.local_rank())
    os.environ["CUDA_VISIBLE_DEVICES"] = own
