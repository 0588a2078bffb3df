"""Checks that all ranks of a run have the same code, settings, inputs and store."""

import contextlib
import os
from pathlib import Path

from lr_exp import distributed
from lr_exp.errors import UserError
from lr_exp.pipeline.inputs import Inputs
from lr_exp.store import digest, file_digest


def check_machines(inputs: Inputs, installed: dict[str, str]) -> None:
    """Raises UserError where a rank has other versions, another device or another store."""
    if not distributed.is_distributed():
        return
    package = Path(__file__).resolve().parents[1]
    code = {str(path.relative_to(package)): file_digest(path) for path in package.rglob("*.py")}
    distributed.check_same(
        {
            "device (a process without a GPU needs device=cpu)": inputs.device.partition(":")[0],
            "precision": inputs.dtype,
            "code of lr_exp": digest(code),  # two checkouts may have the same version
            **{f"version of {name}": value for name, value in installed.items()},
        }
    )
    _check_store(Path(inputs.settings.store))


def check_files(inputs: Inputs) -> None:
    """Raises UserError where ranks see different models or questions, or one has no question."""
    if not distributed.is_distributed():
        return
    found = inputs.fingerprints()
    benchmarks = found.pop("benchmarks")
    named = {f"benchmark {name}": value for name, value in benchmarks.items()}
    distributed.check_same(found | named)
    settings, count = inputs.settings, distributed.world_size()
    if "sample" not in settings.stages or settings.imports_records:
        return
    questions = len(inputs.questions)
    if questions < count:
        raise distributed.SharedError(
            f"data={settings.data.name} has {questions} questions for {count} processes: start at "
            f"most {questions} (torchrun --nproc-per-node), or use more questions."
        )


def _check_store(root: Path) -> None:
    """Raises UserError where a rank does not see the store of rank 0."""

    def create() -> str | None:
        name = f".seen-{os.urandom(8).hex()}"
        with contextlib.suppress(OSError):  # a read-only store
            (root / name).touch()
            return name
        return None

    def check() -> None:
        if name is not None and not (root / name).exists():
            raise UserError(
                f"the store {root} is not that of rank 0: set store= to a folder that all hosts "
                "share."
            )

    name = distributed.run_on_rank0(create)
    try:
        distributed.run_on_all_ranks(check)
    finally:
        if name is not None and distributed.is_rank0():
            (root / name).unlink(missing_ok=True)
