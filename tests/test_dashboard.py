"""The W&B workspace: a real run logs every metric that the panels read; a file without a login."""

import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("wandb_workspaces")
with warnings.catch_warnings():  # it uses pydantic 1 syntax
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb_workspaces.reports.v2
    import wandb_workspaces.workspaces  # noqa: F401

from lr_exp.dashboard import main
from lr_exp.report.figures.style import method_look
from lr_exp.tracking import workspace
from tests.support.recorded import Record, alone

BENCHMARKS = ("micro_add", "micro_plain")
EVERYTHING = workspace.Contents(BENCHMARKS, ("lightreasoner",))


@pytest.fixture(scope="module")
def place(recorded_run):
    with alone(recorded_run):
        yield recorded_run


@pytest.fixture(scope="module")
def record(place):
    """The record of a run that logs everything that the pages show."""
    return Record(place / "runs" / "one")


@pytest.fixture
def login(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.login", lambda **_: True)
    monkeypatch.setattr("wandb.Api", Api)


def specification(page: Any) -> Any:
    return page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def configs(value: Any) -> Iterator[dict[str, Any]]:
    """The settings of all panels in a specification."""
    if isinstance(value, dict):
        if "viewType" in value and "config" in value:
            yield {"viewType": value["viewType"], **value["config"]}
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from configs(inner)


def drawn() -> list[dict[str, Any]]:
    """The panels, as W&B receives them."""
    return [*configs(specification(workspace.make_workspace(EVERYTHING, "someone", "a_project")))]


@pytest.mark.integration
def test_a_run_logs_what_the_panels_read(record):
    """wandb-workspaces can change a name, so this reads the specifications that it makes."""
    defined = {row.get("name") or row["glob_name"]: row for row in record.of("metric")}
    axes, forms = set(), set()
    for panel in drawn():
        form, title = panel["viewType"], panel.get("chartTitle")
        forms.add(form)
        if form == "Run History Line Plot":
            (key,), x = panel["metrics"], panel["xAxis"]
            assert record.in_history(key) == {"number"}, title
            axes.add(x)
            assert record.curve(key, x), title  # both in the same rows
            family = f"{key.partition('/')[0]}/*"
            axis = (defined.get(key) or defined[family])["step_metric"]
            assert x in (axis, "distill/tuned_tokens"), title
        elif form == "Bar Chart":
            assert {record.in_summary(key) for key in panel["metrics"]} == {"number"}, title
        elif form == "Scatter Plot":
            for axis in (panel["xAxis"], panel["yAxis"]):
                section, _, key = axis.partition(":")
                if section == "config":
                    group, _, name = key.split(".")
                    assert isinstance(record.config[group][name], int | float), title
                else:
                    assert record.in_summary(key) == "number", title
    assert axes == {*workspace.AXIS_TITLES}
    assert len(forms) == 4
    for table in ("eval/before_after", "eval/answers"):
        assert record.in_summary(table) == "table-file"
        assert any(table in json.dumps(panel) for panel in drawn())


def test_every_axis_has_a_title():
    for panel in drawn():
        if panel["viewType"] in ("Run History Line Plot", "Bar Chart"):
            assert panel.get("xAxisTitle"), panel
            assert panel.get("yAxisTitle"), panel


@pytest.mark.integration
def test_the_workspace_has_its_sections_colours_and_recorded_columns(place, record):
    contents = workspace.contents_of(place / "runs")
    assert contents == EVERYTHING
    page = workspace.make_workspace(contents, "someone", "a_project")
    for column in page.runset_settings.pinned_columns:
        kind, _, name = column.partition(":")
        if kind == "summary":
            assert record.in_summary(name) == "number", name
        elif kind == "config":
            group, value, key = name.split(".")
            assert value == "value"
            assert key in record.config[group]
    section = specification(page)["spec"]["section"]
    names = [bank["name"] for bank in section["panelBankConfig"]["sections"]]
    assert names == ["Sampling", "Distillation", "Evaluation", "Comparison"]
    (runset,) = section["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "cell.value.method"}]
    ((key, colour),) = section["customRunColors"].items()
    assert colour == method_look("lightreasoner").colour
    assert "lightreasoner" in key
    assert "cell.value.method" in key


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "variable"), [([], None), ([], "offline"), (["--offline"], None)]
)
def test_a_workspace_that_is_not_saved_is_written_with_advice(
    place, tmp_path, monkeypatch, capsys, words, variable
):
    if variable or words:  # despite a login
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert main([str(place / "runs"), "--out", str(tmp_path / "out"), *words]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "workspace.json" in first
    assert second.startswith("Nothing was sent to W&B.")
    assert second.endswith("with a login, without WANDB_MODE and --offline.")
    text = (tmp_path / "out" / "workspace.json").read_text("utf-8")
    assert "eval/micro_add/tuned" in text
    json.loads(text)


class Api:
    """Replaces `wandb.Api`: a login with one project."""

    default_entity = "someone"

    def __init__(self, **_: Any) -> None:
        pass

    def projects(self, entity: str) -> list[Any]:
        if entity == "nobody":
            raise ValueError("could not find entity 'nobody'\nsecond line")
        return [type("Project", (), {"name": "there"})()]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--project", "absent"], "no project someone/absent"),
        (["--entity", "nobody", "--project", "there"], "could not find entity 'nobody'"),
    ],
)
def test_an_inaccessible_project_is_a_one_line_error(login, capsys, words, message):
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.integration
def test_with_a_login_the_workspace_is_saved(login, monkeypatch, capsys):
    saved = []

    class Page:
        url = "https://wandb.example.org/someone/there"

        def save(self) -> "Page":
            return self

    def make(contents: Any, entity: str, project: str) -> Page:
        saved.append((entity, project))
        return Page()

    monkeypatch.setattr(workspace, "make_workspace", make)
    monkeypatch.setenv("WANDB_PROJECT", "there")
    assert main([]) == 0
    assert saved == [("someone", "there")]
    assert capsys.readouterr().out == f"workspace: {Page.url}\n"


def test_a_missing_extra_and_no_runs_are_one_line_errors(tmp_path, monkeypatch, capsys):
    assert main([str(tmp_path), "--offline"]) == 1
    assert "contains no run" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["--offline"]) == 1
    assert "pip install 'lr_exp[dashboard]'" in capsys.readouterr().err
