"""The processes (ranks) of one run: which one this is, and how they communicate.

`torchrun --nproc-per-node N -m lr_exp …` starts N ranks, which run the same code in lockstep; only
rank 0 writes files and prints. In a run of one process every function here is a plain call.
An error keeps the ranks in lockstep if all of them raise it at the same place (`SharedError`).
A rank that fails alone exits, and the others exit with its reason.
"""

from lr_exp.distributed.collectives import check_same as check_same
from lr_exp.distributed.collectives import distribute_jobs as distribute_jobs
from lr_exp.distributed.collectives import run_collectively as run_collectively
from lr_exp.distributed.collectives import run_identically as run_identically
from lr_exp.distributed.collectives import run_on_all_ranks as run_on_all_ranks
from lr_exp.distributed.collectives import run_on_rank0 as run_on_rank0
from lr_exp.distributed.environment import is_distributed as is_distributed
from lr_exp.distributed.environment import is_rank0 as is_rank0
from lr_exp.distributed.environment import local_rank as local_rank
from lr_exp.distributed.environment import local_world_size as local_world_size
from lr_exp.distributed.environment import rank as rank
from lr_exp.distributed.environment import rank_label as rank_label
from lr_exp.distributed.environment import world_size as world_size
from lr_exp.distributed.group import GROUP
from lr_exp.distributed.group import PeerLostError as PeerLostError
from lr_exp.distributed.group import SharedError as SharedError
from lr_exp.distributed.signals import Stopped as Stopped
from lr_exp.distributed.signals import raise_on_signals as raise_on_signals
from lr_exp.distributed.signals import stop_request as stop_request

all_gather, all_reduce = GROUP.all_gather, GROUP.all_reduce
join, leave = GROUP.join, GROUP.leave
check_peers, report_failure = GROUP.check_peers, GROUP.report_failure
