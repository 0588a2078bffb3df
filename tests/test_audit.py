"""The audit of the labels: which positions are continued, from which tokens, and the table."""

import json
from dataclasses import replace

import numpy as np
import pytest

import lr_exp
from lr_exp.audit.__main__ import main
from lr_exp.audit.continuations import Position, _choose, first_tokens
from lr_exp.report.page import write_run_page
from lr_exp.report.page.audit_figure import audit_figure
from lr_exp.report.page.audit_table import KINDS, audit_table, groups, shift
from tests.support.run_folders import write_run

OVERRIDES = ("experiment=demo", "data.max_questions=8", "sampler.batch_size=40")


def record(**changed) -> dict:
    return {
        "question_id": "q",
        "answer": 0,
        "step": 3,
        "kl": 0.7,
        "kind": "moving",
        "label_token": " more",
        "expert_token": ";",
        "trajectory": "wrong",
        "right_from_label": 3,
        "right_from_expert": 1,
        "supervision": "of-this-run",
        "samples": 4,
        "cut_off": 2,
        **changed,
    }


def position(answer: int, step: int, kind: str) -> Position:
    return Position(answer, f"q/{answer}", step, 1.0, kind, [1, 2], 1, (5, 6))


def test_differences_are_paired_by_position_worked_by_hand():
    # Shifts of 1/2, 0 and -1/4.
    records = [
        record(),
        record(right_from_label=1),
        record(right_from_label=0, step=20, kl=5.0, label_token=" 7"),  # noqa: S106,
    ]
    found = shift(records)
    assert found.mean == pytest.approx(0.25 / 3)
    # With 1 and -1 added, the mean is 0.05 and the mean square (1/4 + 1/16 + 2) / 5 = 0.4625.
    half = 1.96 * np.sqrt((0.4625 - 0.05**2) / 5)
    assert found.ci95 == pytest.approx((0.05 - half, 0.05 + half))
    table = audit_table([*records, record(kind="confirming", trajectory="cut off")], "audit")
    rows = {tuple(row[:2]): row[2:] for row in table.rows}
    assert rows["moving", "all"][:3] == ["3", "33.3", "25.0"]
    assert rows["moving", "KL 4 and more nats"][:3] == ["1", "0.0", "25.0"]
    assert rows["moving", "token 16 to 32"][0] == "1"
    assert rows["moving", "label's token: digits"][0] == "1"
    assert rows["confirming", "trajectory cut off"][:3] == ["1", "75.0", "25.0"]
    assert [what for kind, what in groups(records) if what.startswith("KL")] == [
        "KL 0.5 to 1 nats",
        "KL 4 and more nats",
    ]


@pytest.mark.parametrize(
    ("label", "tokens"),
    [
        ({7: 0.2, 5: 0.8}, {"moving": 5}),
        ({7: 0.8, 5: 0.2}, {"confirming": 7, "second choice": 5}),
        ({9: 0.1, 7: 0.8, 5: 0.1}, {"confirming": 7, "second choice": 9}),  # by the expert's order
        ({7: 0.5, 8: 0.5}, {"confirming": 7, "second choice": 8}),  # a tie
        ({7: 1.0}, {"confirming": 7}),  # another token is recorded, but not plausible
    ],
)
def test_answers_continue_from_plausible_tokens(label, tokens):
    support = {"support_ids": [5, 7, 8, 9], "support_expert": [-2.0, -0.5, -0.5, -1.5]}
    scores = {**support, "expert_top1": 7}
    assert first_tokens(label, scores) == tokens


def test_a_question_gives_one_position_of_each_kind():
    kept = [position(n // 6, n % 6, KINDS[n % 3]) for n in range(60)]
    chosen = _choose(kept, 6, 0)
    for kind in KINDS:
        answers = [one.answer for one in chosen if one.kind == kind]
        assert len(answers) == len({*answers}) == 6
    assert _choose(kept, 6, 0) == chosen
    assert _choose(kept, 6, 1) != chosen
    assert len(_choose([replace(one, question_id="q") for one in kept], 6, 0)) == 3


@pytest.mark.integration
def test_the_label_of_the_micro_world_leads_to_right_answers(tmp_path, capsys):
    store = f"store={tmp_path / 'store'}"
    out = tmp_path / "audit"
    budget = ("--positions", "8", "--samples", "2", "--max-new-tokens", "64")
    assert main(["--out", str(out), *budget, *OVERRIDES, store]) == 0
    records = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    moving, confirming, second = ([one for one in records if one["kind"] == kind] for kind in KINDS)
    assert {one["label_token"] for one in moving} == {" (note 1)"}
    assert all(one["label_token"] != one["expert_token"] for one in moving)
    assert all(one["label_token"] == one["expert_token"] for one in confirming)
    assert not second  # wherever two tokens are plausible here, the label prefers the second
    assert shift(moving).mean > 0.3
    assert "Audit of the labels" in capsys.readouterr().out
    # The sampled answers and scores are those of the run.
    sample = lr_exp.sample(lr_exp.compose(*OVERRIDES, store))
    for one in records:
        step = sample.steps[(sample.steps.question_id == one["question_id"])].iloc[one["step"]]
        assert step.kept
        assert step.kl_nats == pytest.approx(one["kl"])
        assert step.expert_top1 == one["expert_token"]
    first = (out / "audit.csv").read_bytes()
    assert main(["--out", str(out), *budget, *OVERRIDES, store]) == 0
    assert (out / "audit.csv").read_bytes() == first
    assert audit_figure(records).png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "0"], "--samples=0 is out of range"),
        (["method=no_contrast"], "method=no_contrast has no soft label"),
        (["method=entropy_min"], "method=entropy_min has no soft label"),
        (["method=privileged_expert"], "under another prompt than the student's"),
        (["method=prompt_distillation"], "under another prompt than the student's"),
    ],
)
def test_an_audit_without_labels_is_an_error(tmp_path, capsys, words, message):
    assert main([*words, *OVERRIDES, f"store={tmp_path}"]) == 1
    assert message in capsys.readouterr().err


def test_an_audit_without_references_is_an_error(tmp_path, capsys):
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "Tom has 11 pens. How many pens does Tom have?"}\n')
    words = [*OVERRIDES, "data=jsonl", f"data.path={questions}", f"store={tmp_path / 'store'}"]
    assert main(words) == 1
    assert "has no reference answer" in capsys.readouterr().err


def test_the_runs_page_shows_the_audit_of_its_own_labels(tmp_path):
    folder = write_run(tmp_path / "0", sample__supervision="of-this-run")
    records = [record(), record(kind="confirming", step=130)]

    def page(text: str) -> str:
        (folder / "audit.jsonl").write_text(text)
        return write_run_page(folder).read_text("utf-8")

    lines = [json.dumps(one) + "\n" for one in records]
    shown = page("".join(lines))
    assert "128 and more" in shown
    assert "confirming" in shown
    assert shown.count("Audit of the labels") > shown.count("cannot be shown") == 0
    other = "cannot be shown: its labels are not those of this run"
    assert other in page("".join(lines).replace("of-this-run", "of-another"))
    assert "audit.jsonl cannot be shown" in page(lines[0][:40])
    (folder / "audit.jsonl").unlink()
    assert "Audit of the labels" not in write_run_page(folder).read_text("utf-8")


@pytest.mark.integration
def test_an_audit_of_other_labels_than_the_runs_ends_before_continuing(tmp_path, capsys):
    run = write_run(tmp_path / "0", alpha=0.5, settings__alpha=0.5, sample__supervision="other")
    page = sorted(run.iterdir())
    assert main([*OVERRIDES, f"store={tmp_path / 'store'}", "--out", str(run)]) == 1
    error = capsys.readouterr().err
    assert f"the labels are not those of the run in {run} (" in error
    assert "alpha=0.2, in the run 0.5" in error
    assert "pass the run's own overrides" in error
    assert sorted(run.iterdir()) == page
    assert not [*(tmp_path / "store").glob("audit*")]


@pytest.mark.integration
def test_chosen_answers_can_be_audited(tmp_path, capsys):
    """They have all ended, so that nothing records which of them did."""
    words = ["--positions", "2", "--samples", "1", "--max-new-tokens", "8", *OVERRIDES]
    words += [f"store={tmp_path / 'store'}", "--out", str(tmp_path / "audit")]
    words += ["method.trajectories=expert_verified", "method.max_new_tokens=80"]
    assert main(words) == 0
    assert "trajectory right" in (tmp_path / "audit" / "audit.csv").read_text()
