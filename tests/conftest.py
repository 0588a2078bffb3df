"""Shared fixtures: the program, called in this process, and a run recorded by W&B."""

import gc
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hypothesis import settings

# A loaded machine must not fail a test.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")


def pytest_collection_finish() -> None:
    """Exempts imported libraries from garbage collection, which runs call and which takes long."""
    gc.freeze()


@dataclass(frozen=True)
class Outcome:
    """The result of a call of the program: exit status, output and folder."""

    status: int
    out: str
    err: str
    folder: Path  # the run's; the store is next to it

    @property
    def error(self) -> str:
        """The error line of a failed run; fails if there is not exactly one."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.err
        assert self.status == 1
        assert "Traceback" not in self.err
        return lines[0]

    @property
    def finished(self) -> list[str]:
        """Stages with a complete artifact in the store."""
        store = self.folder.parent / "store"
        return sorted(path.parent.parent.name for path in store.rglob("manifest.json"))


@pytest.fixture(autouse=True)
def no_process_in_unit_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unmarked tests are unit tests (`make test-fast`) and may start no process but the grader's.

    Grading starts one process, which all tests share.
    """
    if any(request.node.get_closest_marker(name) for name in ("integration", "slow")):
        return

    from lr_exp.pipeline.origin import origin

    origin()  # reads the code's commit once in a process
    start = subprocess.Popen.__init__

    def refuse(self: subprocess.Popen, arguments: object, *rest: object, **named: object) -> None:
        if "symbolic_worker" in str(arguments):
            return start(self, arguments, *rest, **named)
        pytest.fail(f"starts {arguments}: mark the test with @pytest.mark.integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(subprocess.Popen, "__del__", lambda self: None)  # nothing was started


@pytest.fixture(scope="session")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/one`, recorded by W&B offline, and its `store`; for all workers."""
    from tests.support.recorded import alone, go  # imports Hydra and torch, which few files need

    own = tmp_path_factory.getbasetemp()
    place = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "recorded"
    with FileLock(f"{place}.lock"), alone(place):
        if not (place / "runs" / "one" / "summary.json").exists():
            go(place / "runs" / "one", place / "store")
    return place


@pytest.fixture(scope="session")
def pair():
    """The expert and the amateur of the micro world."""
    from tests.support.sampling import load_micro

    return load_micro("expert"), load_micro("micro")


@pytest.fixture(scope="session")
def shared(pair):
    """The vocabulary that the pair shares."""
    from tests.support.sampling import shared_ids

    return shared_ids(pair)


@pytest.fixture(scope="session")
def questions():
    """Twelve training questions of the micro world."""
    from lr_exp.config.settings import DataSettings
    from lr_exp.data.questions import load_questions

    source = DataSettings(
        name="micro", format="micro", configs=["micro_add"], split="train", count=12
    )
    return load_questions(source, hub_root=None)


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory, pair, shared, questions):
    """Folders of the pair's answers to the twelve questions and of the step table; read only."""
    from tests.support.sampling import sample

    return sample(tmp_path_factory.mktemp("sampled"), pair, shared, questions)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets the clock that chat templates read."""

    def call(now: datetime) -> None:
        clock = SimpleNamespace(now=lambda: now)
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)

    return call


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Calls `python -m lr_exp` with arguments, in this process and in the test's folder.

    Pages of runs have no figures.
    """
    from lr_exp.__main__ import main
    from tests.support.demo import skip_figures

    skip_figures(monkeypatch)

    # Restore what the program sets for its process.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    monkeypatch.delenv("LR_EXP_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    fixed = (
        *(f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", f"store={tmp_path / 'store'}"),
        "wandb.mode=disabled",
        "device=cpu",
        "dtype=float32",
    )

    def call(*words: object, flags: Sequence[str] = ()) -> Outcome:
        capsys.readouterr()
        try:
            status = main([*flags, *fixed, *map(str, words)])
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err, folder)

    return call
