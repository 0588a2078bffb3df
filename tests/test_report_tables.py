"""The report's tables: published numbers, layout, escaping."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lr_exp.config.settings import (
    AmateurSettings,
    DataSettings,
    ExpertSettings,
    MethodSettings,
    Settings,
)
from lr_exp.report import published, texts
from lr_exp.report.__main__ import main
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.figures.sweep import alpha_beta_map
from lr_exp.report.names import ABSENT, AVERAGE, HUB_IDS, Setup
from lr_exp.report.read.runs import find_runs
from lr_exp.report.tables.accuracy import accuracy_table
from lr_exp.report.tables.cell import signed
from lr_exp.report.tables.efficiency import efficiency_table
from lr_exp.report.tables.formats import (
    csv_text,
    latex_table,
    plain_table,
)
from lr_exp.report.tables.gap import gap_table
from lr_exp.report.tables.kl_profile import kl_profile_table
from lr_exp.report.tables.table import Column, Table
from lr_exp.report.texts import report_text
from tests.support.run_folders import result, write_failed, write_run

CONF = Path(__file__).parents[1] / "conf"

SEVEN = ["gsm8k", "math", "svamp", "asdiv", "minerva_math", "olympiadbench", "mmlu_stem"]
FULL = Setup("qwen_math_1_5b", "lightreasoner", "qwen_0_5b", "gsm8k", 0.2, 0.4)


def _papers(method: str, amateur: str | None = "qwen_0_5b", **changed: object) -> dict:
    return {
        "expert": "qwen_math_1_5b",
        "amateur": amateur,
        "method": method,
        "data": "gsm8k",
        "before": {name: [0, 1] for name in SEVEN},
        "after": {name: [1, 1] for name in SEVEN},
        "settings__data": {"name": "gsm8k", "path": "openai/gsm8k", "max_questions": 1000},
        "settings__distiller": {"steps": 1000, "batch_size": 16, "learning_rate": 5e-5},
        **changed,
    }


def _make(folder: Path, layout):
    (sweep,) = sweeps(find_runs(folder))
    return layout(sweep, "name")


def _csv_rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(table))))


def _column(table: Table, title: str) -> list[str]:
    (place,) = [i for i, column in enumerate(table.columns) if column.full_title == title]
    return [row[place] for row in table.rows]


def test_published_numbers_are_the_papers():
    numbers = published.numbers
    assert numbers(FULL, SEVEN[:6])["AVG"] == 54.0  # the ablation's
    assert numbers(FULL, [*SEVEN[:4], "mmlu_stem"])["AVG"] == 68.1  # the expertise gap's
    assert "AVG" not in numbers(FULL, SEVEN[:2])
    assert "gain" not in numbers(FULL, SEVEN[:6])
    costs = {"hours": 9.5, "solved": 6029, "tuned_tokens": 2_200_000, "gain": 4.5, "math": 63.3}
    some = ("qwen_math_1_5b", "no_contrast", "qwen_0_5b", "gsm8k", None, 0.4)
    master = ("qwen_math_7b", "lightreasoner", "qwen_math_1_5b_instruct", "gsm8k", 0.2, 0.4)
    for setup, expected in {
        FULL: {"svamp": 76.0, "AVG": 54.2},
        Setup("deepseek_r1_distill_qwen_1_5b", "baseline"): {"minerva_math": 16.2, "AVG": 50.3},
        Setup("qwen_math_7b_instruct", "baseline"): {"AVG": 73.2},
        Setup(*some): {"asdiv": 61.0},
        Setup("qwen_math_1_5b", "gt_sft", None, "gsm8k"): {"olympiadbench": 19.8},
        Setup(*master): {"gap": -27.3, "gsm8k": 59.4},
        Setup("qwen_math_7b", "rejection_sft", None, "gsm8k"): costs,
    }.items():
        assert numbers(setup, SEVEN).items() >= expected.items()
    assert "problems" not in numbers(setup, SEVEN)


def test_hub_ids_are_the_presets():
    for name, path in HUB_IDS.items():
        presets = [CONF / role / f"{name}.yaml" for role in ("expert", "amateur")]
        found = {OmegaConf.load(preset).path for preset in presets if preset.exists()}
        assert found == {path}, name


@pytest.mark.parametrize(
    ("method", "changed", "expected"),
    [
        ("lightreasoner", {}, []),
        (
            "lightreasoner",
            {"data.max_questions": 8, "distiller.learning_rate": 1e-4},
            ["data.max_questions is 8 (paper: 1000)", "learning_rate is 0.0001 (paper: 5e-05)"],
        ),
        (
            "neither",
            {"distiller.target_modules": ["q_proj"], "evaluator.max_examples": 50},
            ["max_examples is 50 (paper: all)", "target_modules is q_proj (paper: q_proj+v_proj)"],
        ),
        ("baseline", {"data.max_questions": 8}, []),
        ("baseline", {"evaluator.max_examples": 8}, ["max_examples is 8 (paper: all)"]),
        ("gt_sft", {"sampler.max_new_tokens": 8}, []),  # no rollouts
        # The main results' SFT and the ablation's.
        ("rejection_sft", {"data.max_questions": None, "method.samples": 1}, []),
        (
            "rejection_sft",
            {},
            ["data.max_questions is 1000 (paper: all)", "method.samples is 4 (paper: 1)"],
        ),
    ],
)
def test_settings_that_differ_from_the_papers_are_listed(method, changed, expected):
    """The defaults of the program are the paper's settings."""
    amateur = AmateurSettings(name="qwen_0_5b", path="Qwen/Qwen2.5-0.5B")
    expert = ExpertSettings(name="qwen_math_1_5b", path="Qwen/Qwen2.5-Math-1.5B")
    data = DataSettings(name="gsm8k", format="gsm8k", max_questions=1000)
    own = Settings(expert, amateur, data, MethodSettings(name=method))
    settings = own.to_dict()
    if method == "rejection_sft":
        settings["method"]["samples"] = 4
    for path, value in changed.items():
        group, key = path.split(".")
        settings[group][key] = value
    setup = Setup("qwen_math_1_5b", method, "qwen_0_5b", "gsm8k", 0.2, 0.4)
    found = published.differences(setup, settings)
    assert len(found) == len(expected)
    assert all(one.endswith(end) for one, end in zip(found, expected, strict=True))
    assert published.has_papers_models(setup, settings)


@pytest.mark.parametrize(
    "choices",
    [
        {},  # the micro world
        *(
            _papers("lightreasoner", settings__expert={"name": "qwen_math_1_5b", **model})
            for model in (
                {"path": "other/model"},
                {"path": "Qwen/Qwen2.5-Math-7B"},
                {"path": "Qwen/Qwen2.5-Math-1.5B", "init": "random"},
            )
        ),
    ],
)
def test_models_that_are_not_the_papers_have_no_published_column(tmp_path, choices):
    same = {"gsm8k": result(1, 2)}
    gap = {"decoder": "greedy", "expert": same, "amateur": same}
    write_run(tmp_path / "0", **choices, evaluate__gap=gap)
    for layout in (accuracy_table, gap_table, efficiency_table, kl_profile_table):
        assert not _make(tmp_path, layout).has_published, layout


def test_published_numbers_beside_other_settings_have_an_asterisk_and_a_note(tmp_path):
    few = {"name": "gsm8k", "path": "openai/gsm8k", "max_questions": 8}
    write_run(tmp_path / "0", **_papers("lightreasoner", settings__data=few))
    write_run(tmp_path / "1", **_papers("no_contrast", alpha=None))
    note = "* LightReasoner of qwen_math_1_5b: data.max_questions is 8 (paper: 1000)."
    table = _make(tmp_path, accuracy_table)
    assert _column(table, "GSM8K published") == ["42.5", "70.6*", "62.0"]
    assert table.notes[1:] == [note]
    csv_rows = _csv_rows(table)
    tuned = [row for row in csv_rows if row["method"] == "lightreasoner"]
    assert {row["published_differs"] for row in tuned} == {"data.max_questions is 8 (paper: 1000)"}
    assert tuned[0]["published"] == "70.6"
    costs = _make(tmp_path, efficiency_table)
    assert _column(costs, "problems published") == ["1,000*", ABSENT]
    assert costs.notes[-1] == note
    profile = _make(tmp_path, kl_profile_table)
    assert profile.notes[-1].endswith("data.max_questions is 8 (paper: 1000).")


@pytest.mark.parametrize(
    "changed",
    [
        {"expert": "micro", "amateur": "micro", "data": "micro"},
        {"expert": "smollm2_135m", "method": "baseline"},
        *({"amateur": "early_exit"}, {"data": "math"}, {"beta": 0.8}, {"alpha": 0.1}),
        {"decoder": "contrastive"},
        {"method": "upft", **dict.fromkeys(("amateur", "alpha", "beta"))},
    ],
    ids=str,
)
def test_what_the_paper_did_not_run_has_no_published_number(changed):
    assert published.numbers(replace(FULL, **changed), SEVEN) == {}


def test_every_published_table_agrees_with_the_others():
    seen: dict[tuple[str, ...], str] = {}
    for path in sorted((Path(published.__file__).parent / "published").glob("*.csv")):
        if path.stem == "efficiency":
            continue
        with path.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                for name in SEVEN:
                    if row.get(name):
                        key = (row["expert"], row["amateur"], row["method"], name)
                        assert seen.setdefault(key, row[name]) == row[name], (path.stem, key)
    assert len(seen) > 100


def test_published_numbers_have_their_own_column(tmp_path):
    write_run(tmp_path / "0", **_papers("lightreasoner"))
    write_run(tmp_path / "1", **_papers("upft", amateur=None, alpha=None, beta=None))
    table = _make(tmp_path, accuracy_table)
    assert _column(table, "variant") == ["baseline", "LightReasoner", "UPFT (first tokens)"]
    assert _column(table, "GSM8K published") == ["42.5", "70.6", ABSENT]
    assert _column(table, "AVG published") == ["42.4", "54.2", ABSENT]
    assert _column(table, "GSM8K") == ["50.0 ± 40.5", "100.0 ± 65.8", "100.0 ± 65.8"]
    assert _column(table, "gain")[1] == "+50.0 ± 40.2"  # 7 benchmarks of 1 won: -56.3 to 100
    assert _column(table, "n") == ["14"] * 3
    profile = _make(tmp_path, kl_profile_table)
    cells = dict(zip(_column(profile, ""), _column(profile, "published"), strict=True))
    assert cells["steps below 0.1 nats"] == "about 60.0%"  # the paper's is a rough number
    assert cells["mean KL, different top-1 (nats)"] == "1.99"
    assert _column(profile, "qwen_math_1_5b / qwen_0_5b")[0] == "1,000"


def test_raw_numbers_have_their_own_columns(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, **_papers("lightreasoner"))
    rows = _csv_rows(_make(tmp_path, accuracy_table))
    tuned = [row for row in rows if row["method"] == "lightreasoner"]
    assert [row["benchmark"] for row in tuned] == [*SEVEN, "AVG"]
    wanted = {"accuracy": "100.0", "stderr": "0.0", "published": "54.2", "n": "14", "seeds": "2"}
    assert {key: tuned[-1][key] for key in wanted} == wanted
    assert tuned[-1]["gain"] == "50.0"
    assert rows[0]["seeds"] == ""  # the expert's evaluation does not depend on a seed


def test_failed_cells_are_marked_and_have_no_numbers(tmp_path):
    write_run(tmp_path / "0")
    write_failed(tmp_path / "1", "out of memory", expert="micro", method="neither", seed=3)
    table = _make(tmp_path, accuracy_table)
    assert _column(table, "remark") == ["", "", "failed: out of memory"]
    assert _column(table, "AVG")[-1] == ABSENT
    assert _column(table, "seeds")[-1] == "seed 3"
    rows = _csv_rows(table)
    assert (rows[-1]["accuracy"], rows[-1]["remark"]) == ("", "failed: out of memory")


def test_gaps_are_in_descending_order_beside_the_published_ones(tmp_path):
    right = {name: [0, 1] for name in [*SEVEN[:4], "mmlu_stem"]}
    for amateur, correct in (("qwen_math_1_5b_instruct", 9), ("qwen_0_5b", 1)):
        choices = _papers("lightreasoner", amateur, before=right, after=right)
        gap = {"decoder": "greedy", "expert": {"gsm8k": result(4, 10)}}
        gap["amateur"] = {"gsm8k": result(correct, 10)}
        if correct == 1:
            nats = {"expert": -0.5, "amateur": -0.75, "difference": 0.25, "ci95": [0.2, 0.3]}
            gap["nats"] = {"solutions": 10, **nats}
        write_run(tmp_path / amateur, **choices, evaluate__gap=gap)
    table = _make(tmp_path, gap_table)
    assert _column(table, "amateur") == ["qwen_0_5b", "qwen_math_1_5b_instruct"]
    assert [cell.split(" ")[0] for cell in _column(table, "gap")] == ["+30.0", "-50.0"]
    assert _column(table, "gap, nats/token") == ["+0.250 ± 0.050", ABSENT]
    assert _column(table, "gap published") == ["+38.2", "-42.3"]
    assert _column(table, "decoding") == ["greedy", "greedy"]
    assert _column(_make(tmp_path, accuracy_table), "AVG published") == ["52.7", "68.1", "53.2"]


def test_efficiency_averages_seeds_and_adds_sampling_to_tuning(tmp_path):
    choices = _papers("lightreasoner")
    write_run(tmp_path / "0", seed=0, **choices, distill__seconds=1797.0)
    memory = {"sample__peak_memory_bytes": 2**31, "distill__peak_memory_bytes": 3 * 2**30}
    most = {"peak_memory_bytes": 2**40}  # of the evaluation
    write_run(tmp_path / "1", seed=1, **choices, distill__seconds=1797.0, **memory, **most)
    table = _make(tmp_path, efficiency_table)
    for title, cell in {
        "sampling + tuning (h)": "0.5",  # 3 s and 1797 s
        "sampling + tuning (h) published": "0.5",
        "rollout (s)": "2.0",
        "problems published": "1,000",
        "tokens tuned": "1,600",
        "gain published": "+11.8",
        "peak memory (GiB)": "3.00",
    }.items():
        assert _column(table, title) == [cell], title


def test_published_problems_of_sft_are_beside_the_solved_ones(tmp_path):
    choices = _papers("rejection_sft", amateur=None, alpha=None, beta=None)
    verified = {"drawn": 7473, "right": 4000, "answers": 4000, "solved": 3900}
    every = {"name": "gsm8k", "path": "openai/gsm8k", "max_questions": None}
    choices |= {"settings__data": every, "sample__verified": verified, "sample__questions": 7473}
    write_run(tmp_path / "0", **choices)
    write_run(tmp_path / "1", **_papers("lightreasoner"))
    table = _make(tmp_path, efficiency_table)
    assert _column(table, "problems") == ["7,473", "20"]
    assert _column(table, "problems published") == [ABSENT, "1,000"]
    assert _column(table, "solved") == ["3,900", ABSENT]
    assert _column(table, "solved published") == ["3,952", ABSENT]
    assert any("our interpretation" in note for note in table.notes)


def test_tuning_that_did_not_happen_took_no_time(tmp_path):
    write_run(tmp_path / "0", seed=0, distill__seconds=6.0)
    stopped = {"after": {}, "distill": None, "stopped": "No step."}
    write_run(tmp_path / "1", seed=1, **stopped)
    table = _make(tmp_path, efficiency_table)
    assert _column(table, "tuning (s)") == ["3.0"]
    assert _column(table, "tokens tuned") == ["800"]
    assert _column(table, "remark") == ["1 of 2 seeds: nothing trained: No step."]


def test_the_map_of_alpha_and_beta_names_missing_seeds(tmp_path):
    stopped = {"after": {}, "distill": None, "stopped": "No step.", "sample__kept_share": 0.0}
    choices = {"expert": "micro", "method": "lightreasoner", "amateur": "micro", "alpha": 0.2}
    choices |= {"data": "micro"}
    for seed in (0, 1, 2):
        write_run(tmp_path / f"whole {seed}", seed=seed, beta=0.1)
        write_run(tmp_path / f"some {seed}", seed=seed, beta=0.4, **(stopped if seed else {}))
        write_run(tmp_path / f"none {seed}", seed=seed, beta=0.8, **stopped)
        write_failed(tmp_path / f"failed {seed}", "no memory", seed=seed, beta=1.6, **choices)
    write_failed(tmp_path / "failed", "no memory", seed=3, beta=0.1, **choices)
    write_run(tmp_path / "best", alpha=0.3, beta=0.8, after={"micro_add": [1, 1, 1, 1]})
    figure = _make(tmp_path, lambda sweep, _: alpha_beta_map(sweep))
    texts = [text.get_text().splitlines() for text in figure.mpl_figure.axes[0].texts]
    assert texts == [
        ["75.0", "kept 20.0%", "3/4 seeds"],
        ["41.7", "kept 6.7%", "1/3 trained"],  # 0.75, 0.25, 0.25
        ["25.0", "kept 0.0%", "0/3 trained"],
        ["100.0", "kept 20.0%"],
    ]
    seeds = _column(_make(tmp_path, accuracy_table), "seeds")
    assert seeds == [ABSENT, "3/4", "3", "3", "seed 0, seed 1, seed 2", "1"]


NASTY = "=cmd|' /C calc'!A1 <script>x</script> [a](http://b) $x_1$ 100% \\input{a} \x1b[31m_b_\nnew"


def _nasty_table() -> Table:
    columns = [Column("variant", is_text=True), Column("AVG")]
    return Table("t", "T", columns, [[NASTY, "1.0 ± 0.5"]], [{"variant": NASTY, "gain": -1.5}])


def test_latex_commands_are_escaped():
    heading, _, line = latex_table(_nasty_table()).splitlines()[3:6]
    assert heading.split() == ["variant", "&", "AVG", r"\\"]
    assert r"\textbackslash{}input\{a\}" in line
    assert r"100\%" in line
    assert r"\$x\_1\$" in line
    assert r"\ensuremath{<}script\ensuremath{>}" in line
    assert line.endswith(r"& 1.0 $\pm$ 0.5 \\")
    assert line.isascii()


def test_latex_labels_published_columns():
    columns = [Column("variant", is_text=True), Column("AVG"), Column("published", under="AVG")]
    table = Table("t", "T", columns, [["[x]", "1", "2"]], [])
    lines = latex_table(table).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"variant & AVG & AVG published \\",
        r"\midrule",
        r"{[}x] & 1 & 2 \\",  # braces: a line break would read [x] as its argument
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_wide_tables_are_split_for_the_terminal_and_zero_is_never_negative():
    assert (signed(-0.04), signed(0.04), signed(-0.06)) == ("+0.0", "+0.0", "-0.1")
    columns = [Column("variant", is_text=True), *(Column(f"benchmark {i}") for i in range(12))]
    row = ["LightReasoner", *(f"{i}.0 ± 0.5" for i in range(12))]
    shown = plain_table(Table("t", "T", columns, [row], []))
    assert max(map(len, shown.splitlines())) <= 100
    assert all(f" {i}.0 ± 0.5" in shown for i in range(12))
    assert shown.count("LightReasoner") == 2
    assert "\x1b" not in plain_table(_nasty_table())


def test_p_values_are_corrected_for_the_rows_of_the_table(tmp_path):
    """Five rows: three methods against the baseline, two of them against LightReasoner."""
    before = {"micro_add": [0] * 12}
    right = {"lightreasoner": 12, "no_contrast": 4, "random_steps": 7}
    for method, count in right.items():
        after = {"micro_add": [1] * count + [0] * (12 - count)}
        write_run(tmp_path / method, method=method, before=before, after=after)
    assert main([str(tmp_path)]) == 0
    with (tmp_path / "report" / "results_significance.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == AVERAGE]
    shown = [row for row in rows if row["p_holm"]]
    against = {(row["variant"], row["against"]) for row in rows if not row["p_holm"]}
    assert len(shown) == 5
    assert against == {("random steps", "without contrast")}
    p_values = sorted((float(row["p_mean"]), float(row["p_holm"])) for row in shown)
    assert [p for p, _ in p_values] == pytest.approx(
        [2 / 2**12, 2 / 2**8, 2 / 2**7, 2 / 2**5, 2 / 2**4], abs=0.01
    )
    expected, lowest = [], 0.0
    for factor, (p, _) in zip((5, 4, 3, 2, 1), p_values, strict=True):
        lowest = max(lowest, factor * p)
        expected.append(lowest)
    assert [corrected for _, corrected in p_values] == pytest.approx(expected)
    assert "p (Holm)" in (tmp_path / "report" / "report.html").read_text("utf-8")


def test_every_text_of_reports_is_used_and_each_that_is_used_exists():
    folder = Path(texts.__file__).parent.parent
    code = "".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    used = {*re.findall(r"(?:report_text|captioned)\(['\"](\w+)['\"]", code)}
    assert used == texts._texts().keys()
    assert all(report_text(name, flips=1).endswith(".") for name in used)
