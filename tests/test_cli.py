"""The command line: starts fast, reports mistakes in one line, and every preset is valid."""

import gc
import importlib
import json
import logging
import math
import re
import signal
import tomllib
from itertools import zip_longest

import pytest
from omegaconf import OmegaConf

from lr_exp import __main__, __version__
from lr_exp.api import compose
from lr_exp.config import cells, composition, options
from lr_exp.config.composition import conf_dir
from lr_exp.config.options import option_files
from lr_exp.config.settings import (
    AmateurSettings,
    DataSettings,
    DistillerSettings,
    EvaluatorSettings,
    ExpertSettings,
    SamplerSettings,
    ServerSettings,
    Settings,
)
from lr_exp.data.benchmarks import load_benchmark
from lr_exp.errors import UserError
from lr_exp.store.__main__ import main as keeper
from tests.support.files import ROOT, run_python

# A fast start ----------------------------------------------------------------------------------

INFO = [
    ("lr_exp", "--help", "usage: python -m lr_exp"),
    ("lr_exp", "--version", "lr_exp "),
    ("lr_exp", "--cfg job experiment=demo", "distiller:"),
    ("lr_exp", "--hydra-help", "Hydra"),
    ("lr_exp.list", "", "experts ("),
    ("lr_exp.dashboard", "--help", "--offline"),
]
START = f"""
import gc, runpy, sys
for module, words, _ in {INFO}:
    sys.argv = [module, *words.split()]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        assert not end.code, words
heavy = "torch transformers datasets pandas matplotlib wandb wandb_workspaces"
print("heavy:", sorted({{*heavy.split()}} & {{*sys.modules}}))
import lr_exp.data, lr_exp.evaluator.grade  # may import torch
assert "datasets" not in sys.modules
assert not gc.isenabled()  # until a run starts
# A run that finds everything in the store trains, decodes and draws nothing.
import lr_exp.pipeline.run, lr_exp.report.page
from lr_exp.models import loading, locating
loading.load_tokenizer(locating.locate(lr_exp.compose("experiment=demo").expert, "expert"))
needless = {{"peft", "matplotlib"}}
assert not needless & {{*sys.modules}}, needless & {{*sys.modules}}
"""


@pytest.mark.integration
def test_info_options_and_the_list_import_nothing_heavy(tmp_path):
    """With torch imported, `--help` would take seconds."""
    done = run_python("-c", START, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert all(says in done.stdout for _, _, says in INFO)
    assert list(tmp_path.iterdir()) == []  # no run folder


def test_garbage_is_collected_during_runs_although_not_before(program, monkeypatch):
    collects: list[bool] = []

    def run(*_: object) -> None:
        collects.append(gc.isenabled())
        raise UserError("stop here")

    monkeypatch.setattr("lr_exp.pipeline.run.run", run)
    gc.disable()
    try:
        assert program("experiment=demo").error == "error: stop here"
        assert (collects, gc.isenabled()) == ([True], True)
    finally:
        gc.enable()


def test_help_is_the_programs_not_hydras(program):
    outcome = program("experiment=demo", flags=["--help"])
    assert outcome.status == 0
    page = outcome.out
    assert page.startswith("LightReasoner: ")
    assert "powered by Hydra" not in page
    words = {word.rstrip(",") for word in page.split()}
    for group in (*options.GROUPS, "benchmark", "prompt"):
        assert f"{group}:" in words
        assert set(option_files([conf_dir()], group)) <= words
    assert len(re.findall("^  python -m lr_exp ", page, re.MULTILINE)) == 3  # examples
    known = {*composition._keys(OmegaConf.structured(Settings))}
    assert {*re.findall(r"^  ([a-z_.]+) {2}", page, re.MULTILINE)} <= known
    for module in ("list", "report", "store", "dashboard", "evaluator.grade"):
        assert f"python -m lr_exp.{module} " in page
    assert "summary.json" in page


def test_version_names_what_results_depend_on(program):
    line = program(flags=["--version"]).out
    assert line.startswith(f"lr_exp {__version__}, torch ")
    assert line.count("\n") == 1
    assert "transformers " in line
    assert "Python 3." in line


def test_a_plain_sweep_is_a_group_and_one_command_uploads_it(program, monkeypatch):
    words = ("experiment=demo", "data.count=4", "stages=[sample]", "beta=0.2,0.4")
    folder = program("--help").folder
    for cell in ("beta=0.2", "beta=0.4"):  # as W&B leaves them behind offline
        (folder / f"{cell},experiment=demo" / "wandb" / "offline-run-1").mkdir(parents=True)
    outcome = program(*words, flags=["-m"])
    assert outcome.status == 0
    assert "W&B: upload all: wandb sync run/*/wandb/offline-run-*" in outcome.out
    summaries = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    assert [one["settings"]["wandb"]["group"] for one in summaries] == ["run", "run"]
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    program(*words, flags=["-m"])
    summaries = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    assert [one["settings"]["wandb"]["group"] for one in summaries] == ["mine", "mine"]


@pytest.mark.parametrize(
    ("variable", "setting", "group"),
    [("", "null", "micro_kl_profile"), ("mine", "null", "mine"), ("mine", "ours", "ours")],
)
def test_the_group_of_a_sweep_is_its_name_by_default(
    program, monkeypatch, variable, setting, group
):
    groups: list[str | None] = []

    def run(settings, *_: object) -> None:
        groups.append(settings.wandb.group)
        raise UserError("stop here")

    monkeypatch.setattr("lr_exp.pipeline.run.run", run)
    monkeypatch.setenv("WANDB_RUN_GROUP", variable)
    words = ("+sweep=micro_kl_profile", "amateur=micro", "seed=0", f"wandb.group={setting}")
    program(*words, flags=["-m"])
    assert groups == [group]


# Mistakes --------------------------------------------------------------------------------------


def test_a_sweeps_bad_cell_fails_the_sweep_and_is_named(program):
    """The other cells run, but an exit status of 0 would hide the failure."""
    outcome = program("alpha=0,2", "stages=[sample]", flags=["-m"])
    assert outcome.status == 1
    lines = outcome.err.splitlines()
    assert lines[:2] == [
        "error: alpha=0.0 is out of range: expected a number in (0, 1].",
        "error: alpha=2.0 is out of range: expected a number in (0, 1].",
    ]
    records = [json.loads(path.read_text()) for path in outcome.folder.glob("*/failed.json")]
    assert sorted(f"error: {record['error']}" for record in records) == lines[:2]
    assert "Traceback" not in outcome.err
    assert program(flags=["--cfg", "job"]).status == 0  # not affected by the earlier failure
    # Settings are checked in all modes.
    assert "Did you mean 'beta'?" in program("betta=1", flags=["--help"]).error
    assert "alpha=abc" in program("alpha=abc", flags=["--cfg", "job"]).error


def test_an_invalid_run_folder_is_one_line_and_a_bug_keeps_its_traceback(program, monkeypatch):
    assert "/proc/none" in program("experiment=demo", "hydra.run.dir=/proc/none").error

    def broken(*_, **__):
        raise RuntimeError("a defect")

    monkeypatch.setattr("lr_exp.pipeline.run.run", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        program("expert=micro", "amateur=micro")


# Ranges ----------------------------------------------------------------------------------------

NAN = math.nan

OUTSIDE = {
    ServerSettings: {"concurrency": (0,), "timeout": (0.0, NAN), "attempts": (0,)},
    Settings: {"alpha": (0.0, -0.1, 1.5, NAN), "beta": (-1.0, NAN), "seed": (-1, 2**32)},
    SamplerSettings: {
        "max_new_tokens": (0, -1),
        "batch_size": (0,),
        "tokens_per_pass": (0,),
        "support_floor": (0.0, 1.5, NAN),
    },
    DistillerSettings: {
        "steps": (0, -5),
        "batch_size": (0,),
        "tokens_per_pass": (0,),
        "learning_rate": (0.0, -1e-5, math.inf, NAN),
        "warmup_steps": (-1,),
        "weight_decay": (-0.1, NAN),
        "max_grad_norm": (0.0, NAN),
        "lora_r": (0, 2**16 + 1),
        "lora_alpha": (0,),
        "lora_dropout": (-0.1, 1.0, NAN),
        "log_every": (0,),
        "checkpoint_seconds": (-1.0, NAN),
    },
    EvaluatorSettings: {
        **dict.fromkeys(("max_examples", "max_new_tokens", "batch_size", "samples"), (0,)),
    },
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_values_out_of_range_are_refused_by_name(kind):
    for field, values in OUTSIDE[kind].items():
        for value in values:
            with pytest.raises(UserError, match=rf"{field}={value} is out of range: expected"):
                kind(**{field: value})
    # The limits are in range.
    Settings(alpha=1.0, beta=0.0, seed=2**32 - 1)
    Settings(alpha=0.001)  # the default support_floor
    SamplerSettings(support_floor=1.0)
    DistillerSettings(lora_dropout=0.0, warmup_steps=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataSettings(name="x", format="micro", count=0),
        lambda: Settings(prompt_date="today"),
        lambda: Settings(prompt_date="2025-02-30"),
        lambda: DistillerSettings(order="step"),
        lambda: EvaluatorSettings(num_fewshot=0),
    ],
)
def test_invalid_options_and_counts(make):
    with pytest.raises(UserError):
        make()


# Presets ---------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers():
    settings = compose()
    assert settings.expert.path == "Qwen/Qwen2.5-Math-1.5B"
    assert settings.amateur.path == "Qwen/Qwen2.5-0.5B"
    assert (settings.data.path, settings.data.split) == ("openai/gsm8k", "train")
    assert settings.data.max_questions == 1000
    assert (settings.alpha, settings.beta) == (0.2, 0.4)
    method = settings.method
    assert (method.name, method.trajectories) == ("lightreasoner", "expert_greedy")
    assert (method.select, method.target, method.loss) == ("kl_above_beta", "contrast", "kl")
    assert settings.sampler.max_new_tokens == 128
    assert settings.sampler.system_prompt == "Please reason step by step."
    tuned = settings.distiller
    assert (tuned.steps, tuned.batch_size, tuned.learning_rate) == (1000, 16, 5e-5)
    assert (tuned.lora_r, tuned.lora_alpha, tuned.lora_dropout) == (8, 16, 0.05)
    assert (tuned.target_modules, tuned.schedule) == (None, "linear")  # q_proj and v_proj
    assert settings.evaluator.max_new_tokens == 2048
    assert settings.evaluator.system_prompt == (
        "Please reason step by step, and put your final answer within \\boxed{}."
    )
    seven = "gsm8k math svamp asdiv minerva_math olympiadbench mmlu_stem"
    assert settings.benchmarks == seven.split()
    assert settings.stages == ["sample", "distill", "evaluate"]


def names_of(group: str) -> list[str]:
    return [f"{group}={name}" for name in option_files([conf_dir()], group)]


# One option of each group at a time, since composing takes a tenth of a second.
GROUPS = ("expert", "amateur", "data", "method")
PRESETS = [*map(list, zip_longest(*map(names_of, GROUPS)))]


@pytest.mark.integration
@pytest.mark.parametrize("words", PRESETS, ids=str)
def test_every_preset_composes_to_valid_settings(words):
    """For experiments see test_list."""
    words = [word for word in words if word]
    required = ["data.path=FILE"] if any(word.startswith("data=") for word in words) else []
    settings = compose(*words, *required)
    for word in words:
        group, _, option = word.partition("=")
        assert getattr(settings, group).name == option
    for name in settings.benchmarks:
        load_benchmark(name, [conf_dir()])


RELIED_ON = {
    "expert": "qwen_math_1_5b qwen_math_7b qwen_math_1_5b_instruct qwen_math_7b_instruct "
    "deepseek_r1_distill_qwen_1_5b smollm2_135m micro",
    "amateur": "qwen_0_5b qwen_1_5b qwen_math_1_5b qwen_math_1_5b_instruct early_exit "
    "micro micro_near micro_peer micro_master",
    "method": "lightreasoner no_selection no_contrast neither",
    "experiment": "demo",
    "benchmark": "gsm8k math math500 svamp asdiv minerva_math olympiadbench mmlu_stem",
}


def test_names_that_users_rely_on_exist():
    for group, names in RELIED_ON.items():
        assert {*names.split()} <= {*option_files([conf_dir()], group)}, group


def test_overriding_a_path_renames_the_model_in_the_results():
    """Otherwise results of another model would be shown under the preset's name."""
    random = compose("amateur.init=random"), compose("amateur=qwen_0_5b_random")
    assert [one.amateur.name for one in random] == ["qwen_0_5b_random"] * 2
    settings = compose("expert.path=/models/mine/", "amateur.path=me/Mine-0.5B")
    assert (settings.expert.name, settings.amateur.name) == ("mine", "Mine-0.5B")
    named = compose("expert.path=/models/mine", "expert.name=best")
    assert named.expert.name == "best"
    assert compose().expert.name == "qwen_math_1_5b"
    kinds = (type(settings.expert), type(settings.amateur))
    assert kinds == (ExpertSettings, AmateurSettings)


# Packaging -------------------------------------------------------------------------------------


def test_the_wheel_includes_the_yaml_where_the_program_reads_it(tmp_path, monkeypatch):
    """An installed package must run without the checkout."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"]["conf"] == "lr_exp/conf"
    assert conf_dir() == ROOT / "conf"
    installed = tmp_path / "lr_exp"
    (installed / "conf").mkdir(parents=True)
    monkeypatch.setattr(options, "__file__", str(installed / "config" / "options.py"))
    assert conf_dir() == installed / "conf"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_prints_one_line_on_how_to_resume(program, monkeypatch, number, status):
    def interrupted(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("lr_exp.pipeline.run.run", interrupted)
    outcome = program("experiment=demo")
    assert outcome.status == status
    assert outcome.err == "stopped: run the same command again to resume\n"


@pytest.mark.parametrize(
    ("words", "params", "count"),
    [
        ("-m seed=0,1,2 beta=0.2,0.4 benchmarks=[a,b]", {}, 6),
        ("+sweep=x seed=range(0,5)", {"method": "a,b"}, 10),
        ("+sweep=x seed=7", {"seed": "0,1", "method": "a,b"}, 2),
        *(("experiment=glob(micro*)", {}, None), ("", {}, 1)),
    ],
)
def test_count_cells(words, params, count):
    assert composition.count_cells(words.split(), params) == count


def test_flags_and_overrides_may_be_in_any_order():
    flags = composition.parse_flags(["beta=0.1,0.2", "-m", "--config-dir", "a=b", "seed=1"])
    assert flags.multirun
    assert (flags.config_dir, flags.overrides) == ("a=b", ["beta=0.1,0.2", "seed=1"])


@pytest.mark.parametrize("words", ["-sc install=bash", "--shell-completion uninstall=fish"])
def test_the_words_of_shell_completion_are_no_overrides(words, monkeypatch):
    monkeypatch.setattr(__main__, "_run_hydra", lambda args, **_: called.append(args.overrides))
    called = []
    assert __main__.main(words.split()) == 0
    assert called == [words.split()[1:]]


@pytest.mark.parametrize(
    ("word", "rounded"),
    [
        ("beta=range(0.1,0.4,0.1)", "beta=0.1,0.2,0.3"),
        ("+method.mix=range(0.5,0.1,-0.2)", "+method.mix=0.5,0.3"),
        (
            "distiller.learning_rate=range(1e-5,4e-5,1e-5)",
            "distiller.learning_rate=1e-05,2e-05,3e-05",
        ),
        ("beta=range(0.5,0.1,0.1)", "beta=range(0.5,0.1,0.1)"),  # empty, which Hydra reports
        ("seed=range(1,3)", "seed=range(1,3)"),
        ("beta=0.1,0.2", "beta=0.1,0.2"),
    ],
)
def test_ranges_have_the_values_that_users_expect(word, rounded):
    assert composition.round_range(word) == rounded


def test_cells_print_debugging_messages_of_this_package_and_each_warning_once(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)  # as hydra.verbose=true does
    cells.prepare()
    assert not logging.getLogger("matplotlib.font_manager").isEnabledFor(logging.DEBUG)
    assert logging.getLogger("lr_exp.pipeline").isEnabledFor(logging.INFO)

    def is_printed(level, text):
        return cells._is_new(logging.makeLogRecord({"levelno": level, "msg": text}))

    texts = ["the amateur hardly differs", "the amateur hardly differs", "few steps are kept"]
    assert [is_printed(logging.WARNING, text) for text in texts] == [True, False, True]
    assert all(is_printed(logging.INFO, "loading the expert") for _ in range(2))


# The other programs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("lr_exp.evaluator.grade", ["{}.jsonl"]),
        ("lr_exp.report.__main__", ["{}"]),
        ("lr_exp.store.__main__", ["list", "--store", "{}"]),
        ("lr_exp.list", ["{}"]),
    ],
)
def test_every_program_prints_errors_on_one_clean_line(module, words, monkeypatch, capsys):
    """A file name may contain control sequences and a secret."""
    monkeypatch.setenv("MY_API_KEY", "s3cret-s3cret-s3cret-1")
    hostile = "no\x1b[2J\nsuch s3cret-s3cret-s3cret-1"
    main = importlib.import_module(module).main
    assert main([word.format(hostile) for word in words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert "\x1b" not in line
    assert "s3cret" not in line


def test_a_folder_with_other_content_is_not_a_store(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert keeper(["list", "--store", str(tmp_path)]) == 1
    assert "is not a store" in capsys.readouterr().err
    (tmp_path / "photos").rmdir()
    assert keeper(["list", "--store", str(tmp_path)]) == 0  # an empty folder is an empty store
    assert capsys.readouterr().out == "0 B in no artifacts\n"
