"""Runs of several processes: functions that every rank calls, and torchrun itself."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support import forked

ROOT = Path(__file__).parents[2]


def torchrun(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Starts `slow` on two ranks with torchrun, with stderr merged into stdout."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", *launcher, "-m", "tests.support.ranked", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
    """Waits for the process; returns its exit status and output."""
    try:
        out, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return process.returncode, out


def primitives(folder: Path) -> None:
    """Calls every function of `lr_exp.distributed`; writes the results of each rank as JSON."""
    import torch

    from lr_exp import distributed
    from lr_exp.errors import UserError
    from lr_exp.pipeline import rank_checks
    from lr_exp.store import Recipe, Store

    distributed.join("cpu")
    results: dict[str, object] = {"environment": "WORLD_SIZE" in os.environ}

    def fails_at(number: int, job: int) -> int:
        if job == number:
            raise UserError(f"job {job} cannot be done")
        return 10 * job + distributed.rank()

    def distribute(jobs, number=-1, take=lambda *_: None) -> None:
        distributed.distribute_jobs(jobs, lambda job: fails_at(number, job), take)

    def error_of(call, *given) -> str | None:
        try:
            call(*given)
        except distributed.SharedError as error:
            return str(error)
        return None

    taken: list[list[int]] = []
    distribute(range(5), take=lambda *pair: taken.append([*pair]))
    results["distribute_jobs"] = taken
    results["run_on_rank0"] = distributed.run_on_rank0(lambda: distributed.rank())
    results["all_gather"] = distributed.all_gather(distributed.rank())
    results["run_on_all_ranks"] = distributed.run_on_all_ranks(lambda: distributed.rank())
    results["run_collectively"] = distributed.run_collectively(
        lambda work: work(1) + work(2), lambda n: n + distributed.rank()
    )
    rank = distributed.rank()
    tensors = [torch.full((2, 2), 1.0 + rank), torch.full((3,), 10.0 * rank)]
    distributed.all_reduce(tensors)
    results["all_reduce"] = [tensor.tolist() for tensor in tensors]
    distributed.check_same({"a": 1})

    def disk_is_full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def broken_jobs():
        yield from []
        raise UserError("no prompt fits")

    own_store = Store(folder / f"store-{distributed.rank()}")
    reached: list[int] = []
    on_all, on_first = distributed.run_on_all_ranks, distributed.run_on_rank0
    together = distributed.run_collectively
    results["errors"] = {
        "work of rank 1": error_of(distribute, range(9), 3, lambda job, _: reached.append(job)),
        "take": error_of(distribute, range(4), -1, lambda job, _: fails_at(2, job)),
        "rank 0": error_of(on_first, lambda: fails_at(0, distributed.rank())),
        "all ranks": error_of(on_all, lambda: fails_at(7, 7)),
        "rank 1": error_of(on_all, lambda: fails_at(1, distributed.rank())),
        "run_collectively": error_of(together, lambda work: work(), lambda: distribute([3], 3)),
        "check_same": error_of(distributed.check_same, {"a": 1, "questions": distributed.rank()}),
        "disk": error_of(
            lambda: Store(folder / "store").make(
                Recipe("disk", 1, {}, {}),
                lambda _: distribute([1], take=disk_is_full) or {},
                together=True,
            )
        ),
        "jobs": error_of(distributed.distribute_jobs, broken_jobs(), print, print),
        "store": error_of(rank_checks._check_store, own_store.root),
    }
    rank_checks._check_store(Store(folder / "store").root)
    results["leftover files"] = [str(path) for path in folder.glob("store*/.seen-*")]
    results["reached"] = reached
    results["after errors"] = distributed.all_gather(distributed.rank())  # still in lockstep

    def fails_on_rank0(_: Path) -> dict[str, object]:
        if distributed.is_rank0():
            raise RuntimeError("write failed: No space left on device")  # as torch reports it
        distributed.all_gather("the other ranks wait here")
        return {}

    try:
        Store(folder / "store").make(Recipe("last", 1, {}, {}), fails_on_rank0, together=True)
    except Exception as error:
        results["rank 0 fails alone"] = [type(error).__name__, str(error)]
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(results), "utf-8")
    os._exit(0)  # the other ranks notice that rank 0 exited


def elsewhere(folder: Path, words: list[str]) -> None:
    """The program, with rank 1 in another folder, as on a host with other files."""
    if os.environ["RANK"] == "1":
        os.chdir(folder)
    forked.run_program(words)


def fails_alone(words: list[str]) -> None:
    """The program, where rank 1 alone fails in training."""
    from lr_exp.distiller import distill
    from lr_exp.errors import UserError

    if os.environ["RANK"] == "1":

        def fail(*_, **__):
            raise UserError("the adapter cannot be written")

        distill.distill = fail
    forked.run_program(words)


def slow() -> None:
    """The program with slow rollouts; writes process ids to the folder."""
    from lr_exp.inference import generation

    Path(f"pid-{os.environ['RANK']}").write_text(str(os.getpid()), "utf-8")
    decode = generation.decode

    def decode_slowly(*models, **limits):
        time.sleep(1.0)
        return decode(*models, **limits)

    generation.decode = decode_slowly
    forked.run_program(sys.argv[1:])


if __name__ == "__main__":
    slow()
