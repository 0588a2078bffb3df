"""Ten thousand questions: flat memory, few open files, and the same result as ten shorter runs."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lr_exp.config.settings import DataSettings
from lr_exp.data.questions import load_questions
from lr_exp.sampler.supervision import SupervisedTrajectory, Supervision

COUNT, RUNS = 10_000, 10
WORDS = [
    "experiment=demo",
    "sampler.batch_size=100",
    "distiller.steps=200",
    "distiller.checkpoint_every=50",
    "wandb.mode=disabled",
]


@dataclass
class Sample:
    """State of the process at one time."""

    stage: str
    bytes: int  # resident set
    files: int  # open


def watch(words: list[str], folder: Path) -> list[Sample]:
    """Runs the program and samples its state twice a second."""
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "lr_exp", *words, f"store={folder}/store"],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    samples = []
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
        except OSError:
            break  # the process has just ended
        stages = [path.parent.name for path in (folder / "store").glob("*/*.part")]
        size = pages * os.sysconf("SC_PAGE_SIZE")
        samples.append(Sample(stages[0] if stages else "", size, files))
        time.sleep(0.5)
    assert process.wait() == 0, (folder / "output").read_text()[-3000:]
    return samples


def growth(samples: list[Sample], stage: str) -> tuple[float, int]:
    """Growth of memory (relative) and of open files after the first tenth of a stage."""
    of_stage = [sample for sample in samples if sample.stage == stage]
    start = of_stage[: max(2, len(of_stage) // 10)]
    memory = max(s.bytes for s in of_stage) / max(s.bytes for s in start) - 1
    return memory, max(s.files for s in of_stage) - max(s.files for s in start)


def kept(summary: Path) -> dict[str, SupervisedTrajectory]:
    folder = json.loads(summary.read_text("utf-8"))["sample"]["artifact"]
    supervision = Supervision.load(summary.parent.parent / folder)
    return {trajectory.question: trajectory for trajectory in supervision.trajectories}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_ten_thousand_questions(tmp_path):
    long = [f"data.count={COUNT}", "data.max_questions=null", "hydra.run.dir=long"]
    samples = watch([*WORDS, *long], tmp_path)
    # Evaluation runs five benchmarks with two models of slightly different needs.
    for stage, max_growth in (("rollout", 0.1), ("score", 0.1), ("answers", 0.25)):
        memory, files = growth(samples, stage)
        print(f"{stage}: memory +{memory:.1%}, open files +{files}")
        assert memory < max_growth
        assert files <= 2
    whole = kept(tmp_path / "long" / "summary.json")

    source = DataSettings(
        name="micro", format="micro", configs=["micro_add"], split="train", count=COUNT
    )
    questions = load_questions(source, hub_root=None)
    assert len(questions) == COUNT
    parts: dict[str, SupervisedTrajectory] = {}
    for number in range(RUNS):
        part = questions[number * COUNT // RUNS : (number + 1) * COUNT // RUNS]
        path = tmp_path / f"part-{number}.jsonl"
        path.write_text("".join(json.dumps({"question": q.text}) + "\n" for q in part), "utf-8")
        words = ["data=jsonl", f"data.path={path}", "stages=[sample]", f"hydra.run.dir=p{number}"]
        watch([*WORDS, *words], tmp_path)
        parts |= kept(tmp_path / f"p{number}" / "summary.json")

    assert parts.keys() == whole.keys()
    for question, trajectory in whole.items():
        part = parts[question]
        assert trajectory.input_ids == part.input_ids
        assert trajectory.steps == part.steps
        assert trajectory.target_ids == part.target_ids
        assert trajectory.kl == pytest.approx(part.kl, rel=1e-3)
