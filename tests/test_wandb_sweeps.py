"""The files for `wandb sweep`: an agent's commands are the runs of the Hydra sweep of that name."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lr_exp.config.composition import (
    check_overrides,
    conf_dir,
    count_cells,
    parse_flags,
    parse_override,
)
from lr_exp.config.options import read_option
from lr_exp.tracking.wandb_sink import DEFAULT_PROJECT
from tests.support.demo import finished_cells
from tests.support.recorded import Record, alone
from tests.test_sweeps import SMALL, cells, settings_of

pytestmark = pytest.mark.integration

FILES = sorted((conf_dir() / "sweep" / "wandb").glob("*.yaml"))


def load(path: Path) -> dict[str, Any]:
    """A sweep as its agent receives it: `wandb sweep` sends it to the service as JSON."""
    return json.loads(json.dumps(yaml.safe_load(path.read_text("utf-8"))))


def commands(config: dict[str, Any]) -> Iterator[list[str]]:
    """The words of each run's command, as `wandb.wandb_agent.Agent` makes them."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    parameters = config["parameters"]
    axes = [one["values"] if "values" in one else [one["value"]] for one in parameters.values()]
    for values in itertools.product(*axes):
        point = {key: {"value": value} for key, value in zip(parameters, values, strict=True)}
        macros = create_sweep_command_args({"args": point})
        macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"]}
        words = []
        for word in create_sweep_command(config["command"]):
            is_macro = word.startswith("${") and word.endswith("}")
            words += macros[word[2:-1]] if is_macro else [word]
        yield words


def overrides_of(words: list[str]) -> list[str]:
    """The overrides of a command, which must be a sweep narrowed to one run."""
    assert words[:4] == ["/usr/bin/env", "python", "-m", "lr_exp"]
    flags = parse_flags(words[4:])
    assert flags.multirun
    check_overrides(flags.overrides)
    return flags.overrides


def values_of(words: Iterable[str]) -> dict[str, Any]:
    """The values of overrides by key: 0.4 for `beta=0.4`, whatever its form."""
    parsed = map(parse_override, words)
    return {override.key_or_group: override.value() for override in parsed}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_runs_of_a_wandb_sweep_are_those_of_the_sweep_of_its_name(path):
    name = path.stem
    params = read_option(conf_dir() / "sweep" / path.name)["hydra"]["sweeper"]["params"]
    fixed = [f"{key}={value}" for key, value in params.items() if key == "experiment"]
    found, made = [], []
    for words in commands(load(path)):
        overrides = overrides_of(words)
        assert count_cells(words[4:], params) == 1
        found.append(values_of([*overrides, *fixed]))
        if found[-1].get("seed", 0) == 0:  # composing takes a tenth of a second
            made.append(settings_of((*overrides, *fixed)))
    expected = [values_of(words) for words in cells(name)]
    assert len(found) == len(expected)
    assert all(one in expected for one in found)
    assert all(found.count(one) == 1 for one in found)
    assert len({(one.alpha, one.beta) for one in made}) == len(made)
    assert {one.sweep for one in made} == {name}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_wandb_sweep_has_only_keys_of_wandb_and_searches_nothing(path):
    """W&B warns of an unknown key only, and ignores it."""
    config = load(path)
    assert config.keys() == {"name", "project", "program", "method", "command", "parameters"}
    assert (config["name"], config["method"]) == (path.stem, "grid")
    assert config["project"] == DEFAULT_PROJECT
    for values in config["parameters"].values():
        assert values.keys() == {"values"}
        assert all(isinstance(value, int | float) for value in values["values"])  # `1e-5` is text
    header = path.read_text("utf-8").splitlines()
    assert header[0].startswith(f"# wandb sweep sweeps/wandb/{path.name} ")
    assert header[1] == f"# python -m lr_exp.report runs/{path.stem}"
    assert header[2].endswith(f" {len(cells(path.stem))} runs.")


def test_an_agents_values_of_every_type_are_overrides():
    """Python's way to write a list, a small number and a bool; null has to be a text."""
    values = {
        "distiller.learning_rate": 1e-05,
        "benchmarks": ["micro_add", "micro_plain"],
        "distiller.steps": 30,
        "control_tokens": True,
        "attention": "null",
        "method": "random_steps",
    }
    parameters = {key: {"value": value} for key, value in values.items()}
    (words,) = commands(load(FILES[0]) | {"parameters": parameters})
    settings = settings_of(tuple(overrides_of(words)))
    assert settings.distiller.learning_rate == 1e-5
    assert settings.benchmarks == ["micro_add", "micro_plain"]
    assert settings.distiller.steps == 30
    assert settings.control_tokens is True
    assert settings.attention is None
    assert settings.method.name == "random_steps"


def test_a_run_of_an_agent_is_recorded_as_a_run_of_the_sweep(program, tmp_path, monkeypatch):
    import wandb

    *_, words = commands(load(conf_dir() / "sweep" / "wandb" / "micro_alpha_beta.yaml"))
    with alone(tmp_path):
        monkeypatch.setenv("WANDB_SWEEP_ID", "x1y2z3")
        monkeypatch.setenv("WANDB_RUN_ID", "a1b2c3")
        wandb.teardown()  # it reads the variables once in a process
        try:
            small = (*SMALL, "stages=[sample]", "wandb.mode=offline")
            outcome = program(*overrides_of(words), *small, flags=["-m"])
        finally:
            wandb.teardown()
    assert outcome.status == 0, outcome.err
    (cell,) = finished_cells(outcome)
    assert (cell["alpha"], cell["beta"], cell["seed"]) == (0.5, 1.6, 2)
    (folder,) = (path.parent for path in outcome.folder.glob("*/summary.json"))
    record = Record(folder).run
    assert (record["sweep_id"], record["run_id"]) == ("x1y2z3", "a1b2c3")
    assert record["run_group"] == "micro_alpha_beta"


def test_an_agents_command_with_several_runs_is_refused(program, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "x1y2z3")
    small = (*SMALL, "stages=[sample]")
    outcome = program("experiment=demo", "seed=0,1", *small, flags=["-m"])
    assert outcome.status == 1
    assert "give each key one value" in outcome.err
