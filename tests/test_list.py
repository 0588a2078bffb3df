"""The list of options: complete, equal to the YAML, fits the terminal, fast."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lr_exp import list as listing
from lr_exp.api import compose
from lr_exp.config.composition import conf_dir
from lr_exp.config.options import option_files, read_option
from lr_exp.data.benchmarks import load_benchmark
from lr_exp.list import KINDS, main
from lr_exp.report import published
from tests.support.hub import COUNTS

ROOT = Path(__file__).parents[1]
CONF = conf_dir()


def rows(kind):
    return {row["name"]: row for row in listing.rows(kind, [CONF])}


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_listed_with_a_sentence(kind):
    found = rows(kind)
    assert list(found) == list(option_files([CONF], KINDS[kind].group))
    for name, row in found.items():
        assert row["what"].endswith("."), name
        assert 10 < len(row["what"]) < 240, name
        assert "python -m" not in row["what"]


@pytest.mark.parametrize("columns", [50, 72, 100, 200, None])
def test_no_line_is_wider_than_the_terminal_or_a_hundred_columns(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    if columns is None:  # a pipe
        monkeypatch.delenv("COLUMNS")
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= min(columns or 100, 100)
    for kind in KINDS:
        assert any(line.startswith(f"{kind} (") for line in lines)


def test_one_kind_is_listed_with_sizes(capsys):
    assert main(["experts"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.endswith(" Qwen/Qwen2.5-Math-7B")]
    assert line.split() == ["qwen_math_7b", "7.62", "B", "14.2", "GiB", "Qwen/Qwen2.5-Math-7B"]
    assert "  early_exit" not in out


def test_json_has_the_facts_for_scripts(capsys):
    assert main(["experts", "sweeps", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["experts", "sweeps"]
    by_name = {row["name"]: row for row in found["experts"]}
    assert by_name["qwen_math_7b"] == {
        "name": "qwen_math_7b",
        "parameters": 7_615_616_512,
        "bf16_bytes": 15_231_233_024,
        "from": "Qwen/Qwen2.5-Math-7B",
        "what": by_name["qwen_math_7b"]["what"],
    }


def test_an_unknown_kind_is_one_line(capsys):
    assert main(["expert"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "error: 'expert' is not a kind of option. Did you mean 'experts'?\n"


# The facts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "count"), [("experts", 3), ("amateurs", 5)])
def test_models_have_the_parameters_of_their_config(kind, count):
    """The micro models', and those real ones whose config is here."""
    counted = 0
    for name, path in option_files([CONF], KINDS[kind].group).items():
        content = read_option(path)
        folder = ROOT / "bench" / "geometry" / name
        if content.get("package") == "lr_exp":
            folder = ROOT / "lr_exp" / content["package_path"]
        if folder.exists():
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
            assert rows(kind)[name]["parameters"] == model.num_parameters()
            counted += 1
    assert counted >= count


def test_a_model_has_the_same_size_as_expert_and_amateur():
    sizes = {row["from"]: row["parameters"] for row in rows("experts").values()}
    for row in rows("amateurs").values():
        if row["from"] in sizes and "/" in row["from"]:
            assert row["parameters"] == sizes[row["from"]]
    assert rows("amateurs")["early_exit"]["bf16_bytes"] == 0


def test_benchmark_sizes_equal_the_tested_ones():
    found = rows("benchmarks")
    assert {name: found[name]["questions"] for name in COUNTS} == COUNTS
    assert found["micro_add"]["questions"] == 500
    assert (found["gsm8k"]["answer"], found["gsm8k"]["examples_from"]) == ("number", "train")


def test_data_lists_available_and_used_questions():
    found = rows("data")
    assert (found["gsm8k"]["questions"], found["gsm8k"]["taken"]) == (7473, 1000)
    assert (found["svamp"]["questions"], found["svamp"]["taken"]) == (700, 700)
    assert (found["jsonl"]["questions"], found["jsonl"]["from"]) == (None, "your file")


@pytest.mark.parametrize("name", option_files([CONF], "experiment"))
def test_experiments_choose_what_hydra_composes(name):
    composed = compose(f"experiment={name}")
    listed = rows("experiments")[name]
    for group in ("expert", "amateur", "data", "method"):
        assert listed[group] == getattr(composed, group).name
    for benchmark in composed.benchmarks:
        load_benchmark(benchmark, [CONF])


def hours(cost):
    """The hours in `published: 0.75 h on one H200, without evaluation`."""
    found = re.fullmatch(r"published: ([\d.]+) h on one H200(.*), without evaluation", cost or "")
    return float(found[1]) if found else None


def test_published_costs_are_the_papers():
    with (Path(published.__file__).parent / "published" / "efficiency.csv").open() as file:
        expected = sorted(float(row["hours"]) for row in csv.DictReader(file))
    costs = {name: row["cost"] for name, row in rows("experiments").items()}
    papers = [hours(cost) for name, cost in costs.items() if name != "sft" and hours(cost)]
    assert sorted(papers) == expected
    assert costs["demo"].startswith("measured ")
    sweeps = {name: row["cost"] for name, row in rows("sweeps").items()}
    assert hours(sweeps["efficiency"]) == pytest.approx(sum(expected), abs=0.06)
    assert sweeps["kl_profile"] is None  # nothing is trained
    assert sweeps["alpha_beta"] is None  # not the paper's settings


def test_a_method_that_extends_another_lists_the_choices_that_it_inherits():
    listed = {row["name"]: row for row in listing.rows("methods", [conf_dir()])}
    inherited = ("trajectories", "select", "target")
    for key in inherited:
        assert listed["extrapolation_2"][key] == listed["extrapolation"][key]
    assert listed["format_wrong"]["trajectories"] == "expert_formatted_wrong"
    assert listed["format_wrong"]["target"] == "token"
