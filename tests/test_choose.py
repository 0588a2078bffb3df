"""Choosing amateur, alpha and beta: candidates, the gate, halving, margins and the command."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import lr_exp
from lr_exp.choose import candidates, halving
from lr_exp.choose.__main__ import main, split
from lr_exp.choose.candidates import Candidate, measure, prepare, self_consistency
from lr_exp.choose.halving import CHOOSING, HELD_OUT, Trial, halve, probability_better
from lr_exp.choose.tables import candidate_table, figure_of, trial_table
from lr_exp.config.settings import ChooseSettings
from lr_exp.pipeline.distilling import make_adapter
from lr_exp.report.names import ABSENT
from lr_exp.store.shards import read_by_index
from tests.support.tiny import tiny_model

OVERRIDES = (
    *("experiment=demo", "data.max_questions=12", "sampler.batch_size=12"),
    *("distiller.batch_size=4", "evaluator.batch_size=64", "distiller.lora_dropout=0.1"),
)
CHOOSE = (
    *("choose.amateurs=[micro,micro_large_careless,micro_random]", "choose.early_exits=false"),
    *("choose.questions=8", "choose.samples=4", "choose.alphas=[0.2]", "choose.betas=[0.2,0.4]"),
    "choose.rungs=[1,3]",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The command's folder and what it printed, and the same of a second call."""
    folder = tmp_path_factory.mktemp("choose")
    words = [*OVERRIDES, *CHOOSE, f"store={folder / 'store'}"]
    artifacts = []
    for name in ("first", "again"):
        assert main([*words, "--out", str(folder / name)]) == 0
        artifacts.append({path: path.stat().st_mtime for path in (folder / "store").glob("*/*")})
    return SimpleNamespace(folder=folder, store=f"store={folder / 'store'}", artifacts=artifacts)


def records(path) -> list[dict[str, str]]:
    return [*csv.DictReader(path.read_text("utf-8").splitlines())]


def test_a_second_call_builds_nothing_and_gives_the_same_tables(made):
    assert made.artifacts[0] == made.artifacts[1]
    for name in ("candidates.csv", "choose.csv", "candidates.svg"):
        first, again = (made.folder / which / name for which in ("first", "again"))
        assert first.read_bytes() == again.read_bytes()


def test_its_tables_rank_candidates_and_trials(made):
    by_name = {one["amateur"]: one for one in records(made.folder / "first" / "candidates.csv")}
    assert [*by_name] == ["micro_large_careless", "micro", "micro_random"]
    assert by_name["micro_random"]["rejected"].startswith("The amateur differs from the expert")
    assert not by_name["micro"]["rejected"]
    trials = records(made.folder / "first" / "choose.csv")
    assert {one["amateur"] for one in trials} <= {"micro_large_careless", "micro"}
    last = [one for one in trials if one["after 3"]]
    assert len(last) == 2
    assert float(last[0]["after 3"]) >= float(last[1]["after 3"])
    assert last[0]["P"] == "" != last[1]["P"]


def test_the_chosen_run_reuses_the_answers_and_the_scores(made, tmp_path):
    winner = records(made.folder / "first" / "choose.csv")[0]
    words = (f"amateur={winner['amateur']}", f"beta={winner['beta']}", "stages=[sample]")
    settings = lr_exp.compose(*OVERRIDES, *words, made.store, "wandb.mode=disabled")
    before = {*(made.folder / "store").glob("*/*")}
    sample = lr_exp.run_experiment(settings, tmp_path).sample
    assert sample is not None
    assert sample.reused
    assert before == {*(made.folder / "store").glob("*/*")}


def context_of_micro(store, *words: str):
    choose = ChooseSettings(amateurs=["micro"], samples=4, questions=4, early_exits=False)
    return prepare([*OVERRIDES, *words, store], choose), choose


def test_a_later_rung_is_the_training_that_never_stopped(made, tmp_path):
    context, _ = context_of_micro(made.store)
    amateur = lr_exp.compose(*OVERRIDES, "amateur=micro").amateur
    own = context.changed(amateur=amateur)
    trajectories = own.inputs.method.trajectories(own).artifact
    steps = candidates.score_trajectories(own, trajectories)
    supervision = halving.select_steps(own, trajectories, steps)

    def weights(steps: int, start=None, store: str = "one"):
        distiller = replace(own.inputs.settings.distiller, steps=steps, schedule="constant")
        trained = own.changed(distiller=distiller)
        trained._store = type(own._store)(tmp_path / store)
        rung = make_adapter(trained, supervision, rung=True, start=start)
        return load_file(rung.adapter / "adapter_model.safetensors"), rung.artifact

    early, start = weights(2)
    continued, _ = weights(5, start)
    at_once, _ = weights(5, store="other")
    assert all(torch.equal(continued[name], at_once[name]) for name in at_once)
    assert not all(torch.equal(early[name], at_once[name]) for name in at_once)
    (start.folder / "checkpoint.pt").unlink()
    with pytest.raises(lr_exp.errors.UserError, match=r"checkpoint\.pt cannot be read"):
        weights(5, start, "third")  # it does start from there


def test_the_log_likelihood_is_that_of_the_plain_model(made):
    context, choose = context_of_micro(made.store)
    answers = candidates.make_answers(
        context, context.inputs.benchmarks[0], candidates.sampled(context, choose)
    )
    rows = [row["token_ids"] for row in read_by_index(answers.folder)][:5]
    asked = [([3, 4, 5][: 1 + n % 3], ids) for n, ids in enumerate(rows)]
    model = context.models.expert()
    found = halving.log_likelihoods(model, asked, 512)
    for (prompt, ids), value in zip(asked, found, strict=True):
        logits = model.model(torch.tensor([[*prompt, *ids]])).logits[0, :, : model.vocabulary_size]
        log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        assert value == pytest.approx(log_probs[range(len(ids)), ids].sum().item(), rel=1e-4)


def stub_answers(monkeypatch, tmp_path, texts: list[str]):
    rows = [{"index": n, "output": text} for n, text in enumerate(texts)]
    monkeypatch.setattr(
        candidates, "make_answers", lambda *_: SimpleNamespace(address="a", folder=0)
    )
    monkeypatch.setattr(candidates, "read_by_index", lambda _: rows)
    questions = [SimpleNamespace(choices=())] * 2
    inputs = SimpleNamespace(
        benchmarks=[SimpleNamespace(answer="number")],
        benchmark_questions={candidates.BENCHMARK: questions},
        settings=SimpleNamespace(seed=0),
        headline="chat",
    )
    make = lambda recipe, build: SimpleNamespace(facts=build(tmp_path))  # noqa: E731
    return SimpleNamespace(inputs=inputs, make=make)


def test_self_consistency_worked_by_hand(monkeypatch, tmp_path):
    texts = [r"\boxed{7}", r"\boxed{7.0}", r"\boxed{8}", "nothing", *["nothing"] * 4]
    context = stub_answers(monkeypatch, tmp_path, texts)
    found = self_consistency(context, ChooseSettings(samples=4), "expert")  # type: ignore[arg-type]
    assert found.tolist() == [0.5, 0.0]


def test_a_more_consistent_amateur_is_rejected_first_for_that(made, monkeypatch):
    context, choose = context_of_micro(made.store)
    choose = replace(choose, amateurs=["micro", "micro_large_careless"])
    shares = {"expert": 0.4, "amateur": 1.0}
    monkeypatch.setattr(candidates, "self_consistency", lambda _, __, who: np.full(32, shares[who]))
    found = measure(context, [*OVERRIDES, made.store], choose)
    message = "It agrees with itself more than the expert (100.0 % against 40.0 %)"
    assert all(one.rejected[0].startswith(message) for one in found)
    shares["amateur"] = 0.41  # within the interval
    assert not any(one.rejected for one in measure(context, [*OVERRIDES, made.store], choose))


def test_an_amateur_without_a_moving_label_is_rejected(made, monkeypatch):
    context, choose = context_of_micro(made.store)
    choose = replace(choose, amateurs=["micro", "micro_large_careless"])
    select = candidates.select_steps

    def still(own, *rest):
        facts = select(own, *rest).facts
        is_still = own.inputs.amateur.name == "micro_large_careless"
        # Without a choice, the limits of the diagnostics do not apply.
        return SimpleNamespace(
            facts=facts | {"moving": 0, "moving_of_kept": 0.0, "choice": 0} if is_still else facts
        )

    monkeypatch.setattr(candidates, "select_steps", still)
    first, last = measure(context, [*OVERRIDES, made.store], choose)
    assert (first.name, first.rejected) == ("micro", ())
    assert last.rejected[0].startswith("At none of the ")


def test_an_amateur_with_other_tokens_is_rejected_with_the_reason(made, tmp_path):
    context, choose = context_of_micro(made.store)
    choose = replace(choose, amateurs=["micro", str(tiny_model(tmp_path, "other"))])
    found = measure(context, [*OVERRIDES, made.store], choose)
    assert [one.name for one in found] == ["micro", "other"]
    assert "do not share a vocabulary" in found[1].rejected[0]
    assert "other is rejected: expert and amateur do not" in candidate_table(found).notes[-1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0], 1.0),
        ([0.0, 0.0], 0.5),  # ties
        ([1.0, -1.0], 0.5),
        ([3.0, -1.0], 0.75),  # only (-1, -1) of the four resamples is below 0
    ],
)
def test_the_bootstrap_worked_by_hand(values, expected):
    other = np.array([5.0, 2.0])
    assert probability_better(other + values, other) == pytest.approx(expected, abs=0.02)


def halved(monkeypatch, scores, rungs):
    """`halve` on trials with these scores after each rung, and the trainings that it requested."""
    trained = []

    def context(name):
        distiller = lr_exp.compose("experiment=demo").distiller
        distiller = replace(distiller, steps=100)  # linear: as much as 50 at a constant rate
        inputs = SimpleNamespace(settings=SimpleNamespace(distiller=distiller))

        def changed(distiller):
            assert distiller.schedule == "constant"
            return SimpleNamespace(name=name, steps=distiller.steps)

        return SimpleNamespace(inputs=inputs, changed=changed)

    trials = [
        Trial(Candidate(name, (), None, (), {}), 0.2, 0.4, context(name), None)  # type: ignore[arg-type]
        for name in scores
    ]

    def adapter(own, supervision, rung, start):
        trained.append((own.name, own.steps, start))
        return SimpleNamespace(artifact=(own.name, own.steps))

    def score(tuned):
        own = scores[tuned.artifact[0]][rungs.index(tuned.artifact[1])] if tuned else 0.0
        return np.array([own, -own, own, -own])  # the held-out half would rank in reverse

    monkeypatch.setattr(halving, "_trials", lambda *_: (trials, 0))
    monkeypatch.setattr(halving, "_scorer", lambda *_: ("score", score))
    monkeypatch.setattr(halving, "make_adapter", adapter)
    run = SimpleNamespace(settings=SimpleNamespace(distiller=SimpleNamespace(steps=100)))
    found = halve(SimpleNamespace(inputs=run), [], ChooseSettings(rungs=rungs))  # type: ignore[arg-type]
    return found, trained


def test_halving_keeps_the_better_half_of_each_rung(monkeypatch):
    scores = {"a": [1, 9, 9], "b": [3, 1, 0], "c": [2, 2, 5], "d": [0, 0, 0], "e": [4, 3, 4]}
    found, trained = halved(monkeypatch, scores, [10, 30, 60])
    # a would have won at the end, but is the fourth of five after the first rung.
    assert [one.candidate.name for one in found.ranked] == ["c", "e", "b", "a", "d"]
    assert trained[5:] == [
        *(("e", 30, ("e", 10)), ("b", 30, ("b", 10)), ("c", 30, ("c", 10))),
        *(("e", 60, ("e", 30)), ("c", 60, ("c", 30))),
    ]
    assert found.steps == 5 * 10 + 3 * 20 + 2 * 30
    assert found.grid_steps == 5 * 100
    table = trial_table(found)
    assert "distiller.steps=100 with distiller.schedule=linear are as much as 50" in table.notes[1]
    assert table.rows[1][-2:] == ["-4.00", "0.00"]  # the held-out half is against the winner
    assert [row[-1] for row in table.rows[2:]] == [ABSENT] * 3
    shown = [Candidate("c", ("amateur=c",), None, (), {"moving_of_kept": 0.5})]  # type: ignore[arg-type]
    assert b"c, " in figure_of(shown, found).svg


def test_two_trials_stay_to_be_compared(monkeypatch):
    found, trained = halved(monkeypatch, {"a": [1, 2], "b": [2, 1]}, [5, 9])
    assert [one.candidate.name for one in found.ranked] == ["a", "b"]
    assert len(trained) == 4
    assert len(trial_table(found).notes) == 1  # the rungs end before the run does


def test_the_halves_of_the_questions_share_none():
    assert {*range(9)[CHOOSING]} & {*range(9)[HELD_OUT]} == set()


def test_margins_need_two_questions_with_both_kinds_of_answers_in_each_half(made, monkeypatch):
    context, choose = context_of_micro(made.store)
    choose = replace(choose, samples=4)
    context = prepare([*OVERRIDES, made.store], replace(choose, questions=8))
    grade = halving.read_json_lines

    def graded(path):
        return [
            {**one, "correct": number < 8 and one["correct"]}
            for number, one in enumerate(grade(path))
        ]

    monkeypatch.setattr(halving, "read_json_lines", graded)
    measure, score = halving._scorer(context, choose)
    assert measure == "sampled accuracy"
    found = score(None)
    assert found.shape == (8,)
    assert found[2:].sum() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["choose.rungs=[50,15]"], "choose.rungs=[50, 15]: list optimizer steps in rising order"),
        (["choose.rungs=[15,15]"], "choose.rungs=[15, 15]"),
        (["choose.rungs=[]"], "choose.rungs=[]"),
        (["choose.questions=1"], "choose.questions=1 is out of range: expected an integer in [4"),
        (["choose.alphas=0.1,0.2"], "write a list, choose.alphas=[...]"),
        (["choose.alphas=[2]"], "choose.alphas=2 is out of range"),
        (
            ["choose.amateur=[micro]"],
            "choose.amateur is not a setting. Did you mean 'choose.amateurs'?",
        ),
        (["amateur=micro"], "list the candidates, as choose.amateurs=[NAME,...]"),
        (
            ["choose.amateurs=[micro,micro_neer]"],
            "amateur=micro_neer: no such option. Did you mean",
        ),
        (["choose.early_exits=false"], "there is one candidate"),
        (
            ["choose.early_exits=false", "choose.amateurs=[micro,micro]"],
            "there is one candidate",
        ),
        (["choose.questions=13"], "choose.questions=13: only 12 questions of data=micro have"),
        (
            ["method=privileged_expert"],
            "method=privileged_expert with data=micro: choose questions",
        ),
        (["method=neither"], "method=neither with data=micro: choose questions, and a method with"),
    ],
)
def test_bad_input_is_one_error(tmp_path, capsys, words, message):
    given = [*OVERRIDES, f"store={tmp_path / 'store'}", "--out", str(tmp_path / "out"), *words]
    assert main(given) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_questions_without_references_are_an_error_where_references_are_needed(tmp_path, capsys):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Tom has 3 pens."}\n' * 5, encoding="utf-8")
    words = ["data=jsonl", f"data.path={path}", "choose.questions=4", f"store={tmp_path / 's'}"]
    assert main([*OVERRIDES, *words]) == 1
    assert "only 0 questions of data=" in capsys.readouterr().err


def test_other_overrides_are_those_of_the_run():
    choose, others = split(["seed=1", "choose.betas=[0.1,1]", "+experiment=demo"])
    assert (choose.betas, others) == ([0.1, 1], ["seed=1", "+experiment=demo"])
