"""W&B's pages: every key that a panel reads is in a real run's record; files without a login."""

import json
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("wandb_workspaces")
with warnings.catch_warnings():  # it writes for pydantic 1
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb_workspaces.reports.v2
    import wandb_workspaces.workspaces  # noqa: F401

from lr_exp.config.composition import conf_dir
from lr_exp.errors import UserError
from lr_exp.report.figures.style import of_method
from lr_exp.report.names import METHODS
from lr_exp.tracking.dashboard import contents, panels, report, workspace
from lr_exp.tracking.dashboard.__main__ import main
from lr_exp.tracking.dashboard.published import markdown

from .recorded import Record, alone

BENCHMARKS = ("micro_add", "micro_plain")
SWEEPS = (*contents.SWEEPS, *(f"micro_{name}" for name in contents.SWEEPS), None)


@pytest.fixture(scope="module")
def place(recorded_run):
    with alone(recorded_run):
        yield recorded_run


@pytest.fixture(scope="module")
def record(place):
    """Of a run that measures all that a page shows."""
    return Record(place / "runs" / "one")


@pytest.fixture(scope="module")
def found(place, record):
    return contents.of_folder(place / "runs")


def all_panels() -> list[panels.Panel]:
    """Each panel of the workspace and of every part of the report once."""
    shown = [panel for section in panels.sections(BENCHMARKS) for panel in section.panels]
    shown += [panel for sweep in SWEEPS for panel in report.shown_in(sweep, BENCHMARKS)]
    return list(dict.fromkeys(shown))


@pytest.mark.parametrize("panel", all_panels(), ids=lambda panel: panel.title)
def test_a_run_has_what_a_panel_reads_in_the_form_that_it_needs(record, panel):
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
                pytest.fail(f"a form that nothing checks: {panel.form}")
    if panel.form == panels.SCATTER:
        assert panel.x
        if panel.x.startswith("config."):
            assert isinstance(at(record.config, panel.x.removeprefix("config.")), int | float)
        else:
            assert record.in_summary(panel.x) == "number"


def at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config


def test_every_curve_is_drawn_over_its_familys_axis(record):
    """A curve over the number of its call instead of its step is what W&B draws unasked."""
    defined = {one.get("name") or one["glob_name"]: one for one in record.of("metric")}
    for panel in all_panels():
        for key in panel.keys if panel.form == panels.LINES else ():
            axis = (defined.get(key) or defined[f"{key.partition('/')[0]}/*"])["step_metric"]
            assert panel.x in (axis, "distill/tuned_tokens")


def test_what_is_measured_beside_the_training_is_no_point_of_its_curve(record):
    """The gap asks the expert again, and its point came after the tuned model's as the last."""
    for name in BENCHMARKS:
        assert [x for x, _ in record.curve(f"eval/{name}/accuracy", "eval/step")] == [0, 8]
    assert record.in_summary("eval/gap") == "number"


def test_every_sweep_that_is_told_of_exists():
    known = {path.stem for path in (conf_dir() / "sweep").glob("*.yaml")}
    assert {sweep.removeprefix("micro_") for sweep in known} >= {*contents.SWEEPS}
    assert [*report._QUESTIONS] == [*contents.SWEEPS]


def strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every text of a specification with the name that it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            for one in inner if isinstance(inner, list) else [inner]:
                if isinstance(one, str):
                    yield name, one
                else:
                    yield from strings(one)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def read_by(spec: Any) -> set[str]:
    """The metrics that a built page reads."""
    found = set()
    for name, text in strings(spec):
        if name in ("metrics", "xAxis", "yAxis", "metricRegex", "val"):
            found.add(re.sub(r"^(summary|config):", "", text))
    return found


def test_pages_read_what_the_panels_say_and_nothing_else(record, found):
    """What W&B's own objects hold, not what was meant: a name can be changed on its way there."""
    pages = {
        "workspace": workspace.build(found, "someone", "a_project"),
        "report": report.build(
            contents.Contents(found.benchmarks, found.methods, SWEEPS),
            "someone",
            "a_project",
            saved=False,
        ),
    }
    names = {key for panel in all_panels() for key in panel.keys}
    names |= {panel.x for panel in all_panels() if panel.x and not panel.x.startswith("config.")}
    own = {"_runtime", "_step", "cell.value.alpha", "cell.value.beta"}  # W&B's clocks, the config's
    read = set()
    for page in pages.values():
        spec = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        assert read_by(spec) - own <= names
        read |= read_by(spec)
    assert names <= read
    assert {"cell.value.alpha", "cell.value.beta"} <= read
    assert record.config["cell"].keys() >= {"alpha", "beta", "method"}


def test_a_workspace_has_its_sections_and_the_figures_colours(found):
    assert found.benchmarks == BENCHMARKS
    assert found.methods == ("lightreasoner",)
    assert found.sweeps == ("a_sweep",)
    page = workspace.build(found, "someone", "a_project")
    spec = page._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    section = spec["section"]
    names = [one["name"] for one in section["panelBankConfig"]["sections"]]
    assert names == ["Sampling", "Distilling", "Evaluation", "Trajectories", "System"]
    (runset,) = section["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "cell.value.method"}]
    assert list(section["customRunColors"].values()) == [of_method("lightreasoner").colour]
    (key,) = section["customRunColors"]
    assert "lightreasoner" in key
    assert "cell.value.method" in key


def test_columns_that_are_pinned_are_in_the_record(record, found):
    for column in workspace.build(found, "e", "p").runset_settings.pinned_columns:
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


def test_a_report_has_a_part_for_each_sweep_in_the_methods_colours():
    told = contents.of_the_paper()
    page = report.build(told, "someone", "a_project", saved=False)
    *parts, texts = grids(page)
    assert len(parts) == len(told.sweeps) == 9
    for sweep, grid in zip(told.sweeps, parts, strict=True):
        (runset,) = grid["metadata"]["runSets"]
        assert f'"{sweep}"' in json.dumps(runset["filters"])
        assert runset["grouping"] == [{"section": "config", "name": "cell.value.method"}]
        colours = grid["metadata"]["customRunColors"]
        assert len(colours) == len(told.methods) == len(METHODS) - 1
        for method in told.methods:
            (key,) = (key for key in colours if key.endswith(f":{method}"))
            assert colours[key] == of_method(method).colour
            assert key.startswith(runset["id"])
    assert "sample/trajectories" in json.dumps(texts)


def test_published_numbers_are_labelled_and_beside_no_micro_run():
    for sweep in SWEEPS:
        text = markdown(sweep)
        if text is not None:
            assert text.startswith("**Published** (arXiv 2510.07962")
            assert not (sweep or "").startswith("micro")
    assert "| LightReasoner | 70.6 |" in (markdown("ablation") or "")
    assert "| 0.6 |" in (markdown("kl_profile") or "")
    one = contents.Contents(BENCHMARKS, ("lightreasoner",), ("micro_ablation",))
    micro = json.dumps(spec_of(report.build(one, "", "p", saved=False)))
    assert "**Published**" not in micro
    assert "in the micro world" in micro


def test_a_sweeps_name_is_no_filter_of_its_own():
    """wandb-workspaces puts it between quotes as it is, and reads the whole as an expression."""
    told = contents.Contents(BENCHMARKS, (), ("a' or Metric('State') == 'failed",))
    with pytest.raises(UserError, match="cannot be shown"):
        report.build(told, "", "p", saved=False)


def test_without_a_login_the_specifications_are_written(place, record, tmp_path, capsys):
    assert main([str(place / "runs"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "workspace.json" in lines[0]
    assert "`wandb login`" in lines[1]
    for name in ("workspace", "report"):
        told = (tmp_path / "out" / f"{name}.json").read_text("utf-8")
        assert "eval/micro_add/tuned" in told
        json.loads(told)


def test_offline_sends_nothing_in_spite_of_a_login(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main(["--offline", "--out", str(tmp_path)]) == 0
    assert "Nothing was sent" in capsys.readouterr().out


class Api:
    """Stands for `wandb.Api`: a login with one project."""

    default_entity = "someone"

    def __init__(self, **_: Any) -> None:
        pass

    def projects(self, entity: str) -> list[Any]:
        if entity == "nobody":
            raise ValueError("could not find entity 'nobody'\nat a line of its own")
        return [type("Project", (), {"name": "there"})()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--project", "absent"], "no project someone/absent"),
        (["--entity", "nobody", "--project", "there"], "could not find entity 'nobody'"),
    ],
)
def test_a_login_that_cannot_have_the_pages_is_one_line(monkeypatch, capsys, words, told):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.Api", Api)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_with_a_login_both_pages_are_saved_for_its_entity(monkeypatch, capsys):
    saved = []

    class Page:
        url = "https://wandb.example.org/someone/there"

        def save(self) -> "Page":
            return self

    def build(told: Any, entity: str, project: str, **how: Any) -> Page:
        saved.append((told, entity, project, how))
        return Page()

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.Api", Api)
    monkeypatch.setattr(workspace, "build", build)
    monkeypatch.setattr(report, "build", build)
    assert main(["--project", "there"]) == 0
    assert [one[1:3] for one in saved] == [("someone", "there")] * 2
    assert saved[1][3] == {"saved": True}
    assert capsys.readouterr().out.splitlines() == [
        f"workspace: {Page.url}",
        f"report: {Page.url}",
    ]


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["--offline"]) == 1
    assert "pip install 'lr_exp[dashboard]'" in capsys.readouterr().err


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
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
