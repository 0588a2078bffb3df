"""Users' own options, in a folder that is passed with --config-dir."""

import json
import sys
from pathlib import Path

import pytest

import lr_exp
from lr_exp.errors import UserError
from lr_exp.list import main as list_options
from lr_exp.report.__main__ import main as report
from tests.support.demo import finished_cells
from tests.support.files import summary_of, write_lines
from tests.support.launchers import launcher

FILES = {
    "benchmark/mine.yaml": (
        "about: {{description: Sums that I wrote.}}\n"
        "name: mine\nformat: jsonl\npath: {data}\nanswer: number\n"
    ),
    "data/my_data.yaml": (
        "about: {{description: Sums to learn from., questions: 3}}\n"
        "name: my_data\nformat: jsonl\npath: {data}\n"
    ),
    "expert/my_expert.yaml": "name: my_expert\npath: me/Mine-1.5B\n",
    "amateur/my_amateur.yaml": "name: my_amateur\npath: me/Mine-0.5B\n",
    "prompt/my_prompt.yaml": ("chat: false\ntemplate: 'Sum: {{{{ question }}}} ='\nstop: [Sum]\n"),
    "method/my_method.yaml": "defaults: [lightreasoner]\nname: my_method\n",
    "experiment/my_experiment.yaml": (
        "# @package _global_\nabout: {{description: A run.}}\n"
        "defaults:\n  - demo\n  - override /method: my_method\n  - _self_\nbeta: 0.3\n"
    ),
    "sweep/my_sweep.yaml": (
        "# @package _global_\nabout: {{cost: an hour}}\n"
        "sweep: my_sweep\nbenchmarks: [mine]\nhydra:\n"
        "  mode: MULTIRUN\n  sweeper:\n    params:\n      experiment: my_experiment\n"
        "      alpha: 0.2,0.3\n      seed: range(0,3)\n"
    ),
}
SMALL = (
    "data.max_questions=4",
    "distiller.steps=2",
    "evaluator.max_new_tokens=16",
    "benchmarks=[mine]",
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with an option in every group; the benchmark has three questions."""
    rows = [{"question": f"What is 1 + {n}?", "answer": str(1 + n)} for n in range(3)]
    data = write_lines(tmp_path / "sums.jsonl", rows)
    for name, text in FILES.items():
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True)
        file.write_text(text.format(data=data), "utf-8")
    return tmp_path / "own"


@pytest.mark.integration
@pytest.mark.parametrize("flags", [["--config-dir", "own"], ["hydra.searchpath=[file://own]"]])
def test_a_custom_benchmark_is_evaluated(program, own, flags):
    outcome = program("experiment=demo", "stages=[evaluate]", *SMALL, flags=flags)
    assert summary_of(outcome)["evaluate"]["expert"]["mine"]["total"] == 3
    assert report([str(outcome.folder)]) == 0


@pytest.mark.integration
@pytest.mark.parametrize("name", [launcher("joblib")])
def test_a_custom_sweep_runs_in_other_processes(program, own, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["another", "program"])
    words = ["+sweep=my_sweep", "alpha=0.3", "seed=1", "stages=[evaluate]", *SMALL]
    words += [f"hydra/launcher={name}", "hydra.launcher.n_jobs=2"]
    outcome = program(*words, flags=["-m", "--config-dir", str(own)])
    assert outcome.status == 0, outcome.err
    (cell,) = finished_cells(outcome)
    assert (cell["settings"]["alpha"], cell["settings"]["beta"], cell["seed"]) == (0.3, 0.3, 1)
    assert cell["evaluate"]["expert"]["mine"]["total"] == 3
    assert cell["settings"]["method"]["name"] == "my_method"


@pytest.mark.integration
def test_scripts_pass_the_folder_to_compose_and_settings_remember_it(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["experiment=my_experiment", "expert=micro", *SMALL]
    settings = lr_exp.compose(*words, "wandb.mode=disabled", "device=cpu", config_dir="own")
    assert (settings.method.name, settings.beta) == ("my_method", 0.3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    summary = lr_exp.run_experiment(settings, tmp_path / "run")
    assert summary.evaluate.tuned["mine"].total == 3


@pytest.mark.parametrize("group", ["expert", "amateur", "data", "method", "experiment"])
def test_an_option_of_every_group_composes(own, group):
    odd = own.rename(own.with_name("it's, [mine]"))  # needs quotes
    settings = lr_exp.compose(f"{group}=my_{group}", config_dir=odd)
    if group != "experiment":
        assert getattr(settings, group).name == f"my_{group}"


def test_the_list_and_the_help_page_show_them(program, own, capsys):
    assert list_options(["--config-dir", str(own), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for kind in listed.values() for row in kind}
    assert {Path(name).stem for name in FILES} <= set(rows)
    assert rows["my_data"]["questions"] == 3
    assert rows["my_sweep"]["runs"] == 6
    chosen = rows["my_experiment"]
    assert (chosen["expert"], chosen["method"]) == ("micro", "my_method")
    assert list_options(["--config-dir", str(own)]) == 0
    assert "my_sweep" in capsys.readouterr().out
    page = program(flags=["--help", "--config-dir", str(own)]).out
    assert {Path(name).stem for name in FILES} <= {word.rstrip(",") for word in page.split()}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("benchmarks=[min]", "mine"),
        ("evaluator.prompts=[my_promt]", "my_prompt"),
        ("expert=my_exprt", "my_expert"),
        ("expert=qwen_math_7", "qwen_math_7b"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_of_both_folders(program, own, word, meant):
    outcome = program("experiment=demo", word, flags=["--config-dir", str(own)])
    assert f"Did you mean '{meant}'?" in outcome.error


@pytest.mark.parametrize(
    "name", ["benchmark/gsm8k.yaml", "method/lightreasoner.yaml", "config.yaml"]
)
def test_a_name_that_the_package_has_too_is_an_error(program, own, name, capsys):
    """Hydra would silently read the package's."""
    (own / name).write_text("name: x\n", "utf-8")
    outcome = program("experiment=demo", flags=["--config-dir", str(own)])
    with pytest.raises(UserError) as raised:
        lr_exp.compose(config_dir=own)
    for message in (outcome.error, str(raised.value)):
        assert f"{own / name} has the same name as " in message
        assert f"conf/{name}" in message
    assert list_options(["--config-dir", str(own)]) == 1
    assert "has the same name as" in capsys.readouterr().err


def test_a_folder_that_is_not_there(program, tmp_path):
    missing = str(tmp_path / "missing")
    assert "missing is not a folder" in program(flags=["--config-dir", missing]).error
    with pytest.raises(UserError, match="missing is not a folder"):
        lr_exp.compose(config_dir=missing)


def test_a_broken_file_is_reported_by_name(own, capsys):
    (own / "expert" / "my_expert.yaml").write_text("a: [\n", "utf-8")
    assert list_options(["--config-dir", str(own)]) == 1
    assert "my_expert.yaml cannot be read as YAML" in capsys.readouterr().err


def test_neither_a_description_nor_the_folder_is_a_setting(program, own):
    """It would change the run's id and the artifacts' addresses."""
    settings = lr_exp.compose("experiment=my_experiment", "data=my_data", config_dir=own)
    assert "about" not in json.dumps(settings.to_dict())
    assert "'about.description' is not a setting" in program("about.description=x").error
    assert "'config_dirs' is not a setting" in program("config_dirs=[x]").error
