"""The processes of one run: which of them this is, and what they do together.

`torchrun --nproc-per-node N -m lr_exp …` starts N of them, the ranks. All go through the same code
in step; the first one (rank 0) alone writes and speaks. In a run of one process everything here is
a plain call. Ranks stay in step after an error only where all of them know of it: `SharedError`.
One that fails alone ends, and so do the others, with its reason. Knows nothing of stages.
"""

from lr_exp.ranks.failing import (
    PeerLostError,
    SharedError,
    check_peers,
    lost_peer,
    tell_end,
    tell_failure,
)
from lr_exp.ranks.group import all_gathered, join, leave, sum_up
from lr_exp.ranks.place import (
    count,
    is_first,
    local_count,
    local_rank,
    rank,
    several,
    where,
)
from lr_exp.ranks.work import alike, check_same, from_first, in_step, share_out, together

__all__ = [
    "PeerLostError",
    "SharedError",
    "alike",
    "all_gathered",
    "check_peers",
    "check_same",
    "count",
    "from_first",
    "in_step",
    "is_first",
    "join",
    "leave",
    "local_count",
    "local_rank",
    "lost_peer",
    "rank",
    "several",
    "share_out",
    "sum_up",
    "tell_end",
    "tell_failure",
    "together",
    "where",
]
