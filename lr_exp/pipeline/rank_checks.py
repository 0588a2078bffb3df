"""What every rank of a run must see alike, compared by hash before anything is made.

Knows inputs, the store's folder and the package's own files; loads no weights.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.errors import UserError
from lr_exp.pipeline.inputs import Inputs
from lr_exp.store import Store, digest


def check_machines(inputs: Inputs, store: Store, installed: dict[str, str]) -> None:
    """Raises UserError where a rank has other versions, another device or another store.

    Args:
        inputs: of which nothing is read yet.
        store: must be the same folder for all.
        installed: versions that results depend on.
    """
    if not distributed.is_distributed():
        return
    distributed.check_same(_machine(inputs, installed))
    _check_store(store)


def check_files(inputs: Inputs) -> None:
    """Raises UserError where a rank sees other models or questions, or has nothing to do.

    Args:
        inputs: checked.
    """
    if not distributed.is_distributed():
        return
    distributed.check_same(_files(inputs))
    distributed.run_on_all_ranks(lambda: _check_enough(inputs))


def _machine(inputs: Inputs, installed: dict[str, str]) -> dict[str, Any]:
    return {
        "kind of device (are there as many GPUs as processes?)": inputs.device.partition(":")[0],
        "precision": inputs.dtype,
        "code of lr_exp": _code_digest(),
        **{f"version of {name}": value for name, value in installed.items()},
    }


def _files(inputs: Inputs) -> dict[str, Any]:
    found = inputs.provenance()
    return {
        **{who: (found[who] or {}).get("fingerprint") for who in ("expert", "amateur")},
        "data": found["data"],
        "choice of questions": found["questions"],
        **{f"benchmark {name}": value for name, value in found["benchmarks"].items()},
    }


def _code_digest() -> str:
    """Of this package's files: two checkouts may have one version number."""
    package = Path(__file__).resolve().parents[1]
    files = {
        str(path.relative_to(package)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in package.rglob("*.py")
    }
    return digest(files)


def _check_store(store: Store) -> None:
    """Raises UserError where a rank does not see the first one's store."""
    name = distributed.run_on_rank0(lambda: _left_in(store.root))
    try:
        distributed.run_on_all_ranks(lambda: _found_in(store.root, name))
    finally:
        if name is not None and distributed.is_rank0():
            (store.root / name).unlink(missing_ok=True)


def _left_in(root: Path) -> str | None:
    """The name of a new file there; None for a store that can only be read, which serves, too."""
    name = f".seen-{os.urandom(8).hex()}"
    try:
        (root / name).touch()
    except OSError:
        return None
    return name


def _found_in(root: Path, name: str | None) -> None:
    if name is not None and not (root / name).exists():
        raise UserError(
            f"the store {root} is not the one that rank 0 has: set store= to a folder that all "
            "hosts see."
        )


def _check_enough(inputs: Inputs) -> None:
    """Raises UserError where there are fewer questions to learn from than ranks.

    A benchmark may have fewer: it is not what the processes were started for.
    """
    settings, count = inputs.settings, distributed.world_size()
    if "sample" not in settings.stages or settings.imports_records:
        return
    questions = len(inputs.questions)
    if questions < count:
        raise UserError(
            f"data={settings.data.name}: {questions} questions for {count} processes: start "
            f"{questions} at most (torchrun --nproc-per-node), or give it more questions."
        )
