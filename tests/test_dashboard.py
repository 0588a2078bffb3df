"""W&B pages: a real run logs every metric that the panels read; files without a login."""

import json
import re
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

from lr_exp.config.composition import conf_dir
from lr_exp.errors import UserError
from lr_exp.report.figures.style import method_look
from lr_exp.report.names import METHODS
from lr_exp.tracking.dashboard import contents, panels, report, workspace
from lr_exp.tracking.dashboard.__main__ import main
from lr_exp.tracking.dashboard.published import markdown
from tests.support.recorded import Record, alone

BENCHMARKS = ("micro_add", "micro_plain")
SWEEPS = (*contents.SWEEPS, *(f"micro_{name}" for name in contents.SWEEPS), None)


@pytest.fixture(scope="module")
def place(recorded_run):
    with alone(recorded_run):
        yield recorded_run


@pytest.fixture(scope="module")
def record(place):
    """The record of a run that logs everything that the pages show."""
    return Record(place / "runs" / "one")


@pytest.fixture(scope="module")
def run_contents(place, record):
    return contents.of_folder(place / "runs")


def all_panels() -> list[panels.Panel]:
    """All panels of the workspace and the report without duplicates."""
    shown = [panel for section in panels.sections(BENCHMARKS) for panel in section.panels]
    shown += [panel for sweep in SWEEPS for panel in report.sweep_panels(sweep, BENCHMARKS)]
    return list(dict.fromkeys(shown))


@pytest.mark.parametrize("panel", all_panels(), ids=lambda panel: panel.title)
def test_a_run_logs_what_each_panel_reads(record, panel):
    for key in panel.keys:
        match panel.form:
            case panels.LINES:
                assert record.in_history(key) == {"number"}
                assert record.in_history(panel.x) == {"number"}
                assert record.curve(key, panel.x)  # both in the same rows
            case panels.HISTOGRAM:
                assert record.in_history(key) == {"histogram"}
            case panels.BARS | panels.SCATTER:
                assert record.in_summary(key) == "number"
            case panels.TABLE:
                assert record.in_summary(key) == "table-file"
            case panels.MACHINE:
                assert any(re.fullmatch(key, name) for name in record.machine)
            case _:
                pytest.fail(f"no check for the form {panel.form}")
    if panel.form == panels.SCATTER:
        assert panel.x
        if panel.x.startswith("config."):
            assert isinstance(nested(record.config, panel.x.removeprefix("config.")), int | float)
        else:
            assert record.in_summary(panel.x) == "number"


def nested(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config


def test_every_curve_uses_the_axis_of_its_family(record):
    """By default W&B draws a curve over the number of the log call."""
    defined = {row.get("name") or row["glob_name"]: row for row in record.of("metric")}
    for panel in all_panels():
        for key in panel.keys if panel.form == panels.LINES else ():
            axis = (defined.get(key) or defined[f"{key.partition('/')[0]}/*"])["step_metric"]
            assert panel.x in (axis, "distill/tuned_tokens")


def test_the_expertise_gap_adds_no_point_to_the_accuracy_curve(record):
    """It evaluates the expert again, and that was logged as the last point of the curve."""
    for name in BENCHMARKS:
        assert [x for x, _ in record.curve(f"eval/{name}/accuracy", "eval/step")] == [0, 8]
    assert record.in_summary("eval/gap") == "number"


def test_every_listed_sweep_exists():
    known = {path.stem for path in (conf_dir() / "sweep").glob("*.yaml")}
    assert {sweep.removeprefix("micro_") for sweep in known} >= {*contents.SWEEPS}
    assert [*report._QUESTIONS] == [*contents.SWEEPS]


def strings(value: Any) -> Iterator[tuple[str, str]]:
    """All strings in a specification with their keys."""
    if isinstance(value, dict):
        for name, inner in value.items():
            for item in inner if isinstance(inner, list) else [inner]:
                if isinstance(item, str):
                    yield name, item
                else:
                    yield from strings(item)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def metrics_of(spec: Any) -> set[str]:
    """The metrics that a page reads."""
    metrics = set()
    for name, text in strings(spec):
        if name in ("metrics", "xAxis", "yAxis", "metricRegex", "val"):
            metrics.add(re.sub(r"^(summary|config):", "", text))
    return metrics


def test_pages_read_exactly_the_metrics_of_the_panels(record, run_contents):
    """wandb-workspaces can change a name, so this reads the specifications that it makes."""
    pages = {
        "workspace": workspace.build(run_contents, "someone", "a_project"),
        "report": report.build(
            contents.Contents(run_contents.benchmarks, run_contents.methods, SWEEPS),
            "someone",
            "a_project",
            saved=False,
        ),
    }
    names = {key for panel in all_panels() for key in panel.keys}
    names |= {panel.x for panel in all_panels() if panel.x and not panel.x.startswith("config.")}
    not_logged = {"_runtime", "_step", "cell.value.alpha", "cell.value.beta"}
    read = set()
    for page in pages.values():
        spec = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        assert metrics_of(spec) - not_logged <= names
        read |= metrics_of(spec)
    assert names <= read
    assert {"cell.value.alpha", "cell.value.beta"} <= read
    assert record.config["cell"].keys() >= {"alpha", "beta", "method"}


def test_the_workspace_has_its_sections_and_colours(run_contents):
    assert run_contents.benchmarks == BENCHMARKS
    assert run_contents.methods == ("lightreasoner",)
    assert run_contents.sweeps == ("a_sweep",)
    page = workspace.build(run_contents, "someone", "a_project")
    spec = page._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    section = spec["section"]
    names = [bank["name"] for bank in section["panelBankConfig"]["sections"]]
    assert names == ["Sampling", "Distillation", "Evaluation", "Trajectories", "System"]
    (runset,) = section["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "cell.value.method"}]
    assert list(section["customRunColors"].values()) == [method_look("lightreasoner").colour]
    (key,) = section["customRunColors"]
    assert "lightreasoner" in key
    assert "cell.value.method" in key


def test_pinned_columns_are_in_the_record(record, run_contents):
    for column in workspace.build(run_contents, "e", "p").runset_settings.pinned_columns:
        section, _, name = column.partition(":")
        if section == "summary":
            assert record.in_summary(name) == "number", name
        elif section == "config":
            group, value, key = name.split(".")
            assert value == "value"
            assert key in record.config[group]


def spec_of(page: Any) -> Any:
    return page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]


def grids(page: Any) -> list[Any]:
    return [block for block in spec_of(page)["blocks"] if block["type"] == "panel-grid"]


def test_a_report_has_a_section_for_each_sweep_in_the_methods_colours():
    paper = contents.of_the_paper()
    page = report.build(paper, "someone", "a_project", saved=False)
    *sections, trajectories = grids(page)
    assert len(sections) == len(paper.sweeps) == 9
    for sweep, grid in zip(paper.sweeps, sections, strict=True):
        (runset,) = grid["metadata"]["runSets"]
        assert f'"{sweep}"' in json.dumps(runset["filters"])
        assert runset["grouping"] == [{"section": "config", "name": "cell.value.method"}]
        colours = grid["metadata"]["customRunColors"]
        assert len(colours) == len(paper.methods) == len(METHODS) - 1
        for method in paper.methods:
            (key,) = (key for key in colours if key.endswith(f":{method}"))
            assert colours[key] == method_look(method).colour
            assert key.startswith(runset["id"])
    assert "sample/trajectories" in json.dumps(trajectories)


def test_published_numbers_are_labelled_and_never_next_to_micro_runs():
    for sweep in SWEEPS:
        text = markdown(sweep)
        if text is not None:
            assert text.startswith("**Published** (arXiv 2510.07962")
            assert not (sweep or "").startswith("micro")
    assert "| LightReasoner | 70.6 |" in (markdown("ablation") or "")
    assert "| 0.6 |" in (markdown("kl_profile") or "")
    micro_contents = contents.Contents(BENCHMARKS, ("lightreasoner",), ("micro_ablation",))
    micro = json.dumps(spec_of(report.build(micro_contents, "", "p", saved=False)))
    assert "**Published**" not in micro
    assert "(micro world)" in micro


def test_a_sweep_name_cannot_inject_a_filter():
    """wandb-workspaces inserts the name into an expression without escaping it."""
    injected = contents.Contents(BENCHMARKS, (), ("a' or Metric('State') == 'failed",))
    with pytest.raises(UserError, match="cannot be used in a W&B filter"):
        report.build(injected, "", "p", saved=False)


def test_without_a_login_the_specifications_are_written(place, record, tmp_path, capsys):
    assert main([str(place / "runs"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "workspace.json" in lines[0]
    assert "`wandb login`" in lines[1]
    for name in ("workspace", "report"):
        text = (tmp_path / "out" / f"{name}.json").read_text("utf-8")
        assert "eval/micro_add/tuned" in text
        json.loads(text)


def test_offline_sends_nothing_despite_a_login(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main(["--offline", "--out", str(tmp_path)]) == 0
    assert "Nothing was sent" in capsys.readouterr().out


class Api:
    """Replaces `wandb.Api`: a login with one project."""

    default_entity = "someone"

    def __init__(self, **_: Any) -> None:
        pass

    def projects(self, entity: str) -> list[Any]:
        if entity == "nobody":
            raise ValueError("could not find entity 'nobody'\nsecond line")
        return [type("Project", (), {"name": "there"})()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--project", "absent"], "no project someone/absent"),
        (["--entity", "nobody", "--project", "there"], "could not find entity 'nobody'"),
    ],
)
def test_an_inaccessible_project_is_a_one_line_error(monkeypatch, capsys, words, message):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.Api", Api)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_with_a_login_both_pages_are_saved(monkeypatch, capsys):
    saved = []

    class Page:
        url = "https://wandb.example.org/someone/there"

        def save(self) -> "Page":
            return self

    def build(page_contents: Any, entity: str, project: str, **options: Any) -> Page:
        saved.append((page_contents, entity, project, options))
        return Page()

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.Api", Api)
    monkeypatch.setattr(workspace, "build", build)
    monkeypatch.setattr(report, "build", build)
    assert main(["--project", "there"]) == 0
    assert [call[1:3] for call in saved] == [("someone", "there")] * 2
    assert saved[1][3] == {"saved": True}
    assert capsys.readouterr().out.splitlines() == [
        f"workspace: {Page.url}",
        f"report: {Page.url}",
    ]


def test_without_the_extra_the_error_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["--offline"]) == 1
    assert "pip install 'lr_exp[dashboard]'" in capsys.readouterr().err


def test_a_folder_without_runs_is_a_one_line_error(tmp_path, capsys):
    assert main([str(tmp_path), "--offline"]) == 1
    assert "contains no run" in capsys.readouterr().err


def test_help_needs_neither_torch_nor_wandb(monkeypatch, capsys):
    for name in ("torch", "wandb", "wandb_workspaces", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in ("DIR", "--project", "--entity", "--out", "--offline", "examples:"):
        assert word in shown
