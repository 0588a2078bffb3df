"""The processes of one run: which of them this is, and what they do together.

`torchrun --nproc-per-node N -m lr_exp …` starts N of them, the ranks. All go through the same code
in step; the first one (rank 0) alone writes and speaks. In a run of one process everything here is
a plain call. Ranks stay in step after an error only where all of them know of it: `SharedError`.
One that fails alone ends, and so do the others, with its reason. Knows nothing of stages.
"""

from lr_exp.distributed.failing import (
    PeerLostError,
    SharedError,
    check_peers,
    lost_peer,
    report_end,
    report_failure,
)
from lr_exp.distributed.group import all_gather, all_reduce, join, leave
from lr_exp.distributed.place import (
    is_distributed,
    is_rank0,
    local_rank,
    local_world_size,
    rank,
    rank_label,
    world_size,
)
from lr_exp.distributed.work import (
    check_same,
    distribute_jobs,
    run_collectively,
    run_identically,
    run_on_all_ranks,
    run_on_rank0,
)

__all__ = [
    "PeerLostError",
    "SharedError",
    "all_gather",
    "all_reduce",
    "check_peers",
    "check_same",
    "distribute_jobs",
    "is_distributed",
    "is_rank0",
    "join",
    "leave",
    "local_rank",
    "local_world_size",
    "lost_peer",
    "rank",
    "rank_label",
    "report_end",
    "report_failure",
    "run_collectively",
    "run_identically",
    "run_on_all_ranks",
    "run_on_rank0",
    "world_size",
]
