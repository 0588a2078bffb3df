"""The processes (ranks) of one run: which one this is, and how they communicate.

`torchrun --nproc-per-node N -m lr_exp …` starts N ranks, which run the same code in lockstep; only
rank 0 writes files and prints. In a run of one process every function here is a plain call.
An error keeps the ranks in lockstep if all of them raise it at the same place (`SharedError`).
A rank that fails alone exits, and the others exit with its reason.
"""

# ruff: noqa: F401, I001  the names of the package
from lr_exp.distributed.collectives import check_same, distribute_jobs, run_collectively
from lr_exp.distributed.collectives import run_identically, run_on_all_ranks, run_on_rank0
from lr_exp.distributed.environment import is_distributed, is_rank0, local_rank, local_world_size
from lr_exp.distributed.environment import rank, rank_label, world_size
from lr_exp.distributed.group import GROUP, PeerLostError, SharedError
from lr_exp.distributed.signals import Stopped, raise_on_signals, stop_request

all_gather, all_reduce = GROUP.all_gather, GROUP.all_reduce
join, leave = GROUP.join, GROUP.leave
check_peers, peer_lost_error = GROUP.check_peers, GROUP.peer_lost_error
report_end, report_failure = GROUP.report_end, GROUP.report_failure
