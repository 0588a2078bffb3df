"""Choices of a method that a user registers outside the package (docs/extending.md)."""

import pytest

from tests.support.files import summary_of

MODULE = '''
"""A step rule, a target and a loss of my own."""

from typing import Annotated

import torch

from lr_exp.config.method import register


@register("select", columns=("kl", "expert_entropy"))
def every_nth(steps, *, beta, stride: Annotated[int, "[1, 100]"] = 2):
    return (steps["kl"] > beta) & (steps["step"] % stride == 0)


@register("target", columns=("support_ids", "support_expert"))
def top_two(steps):
    values, places = steps["support_expert"].topk(min(2, steps["support_expert"].shape[1]))
    return steps["support_ids"].gather(1, places), values.softmax(-1)


@register("loss", needs=("target",))
def cross_entropy(student_log_probs, target_ids, target_weights, *, scale: float = 1.0):
    return -scale * (target_weights * student_log_probs.gather(-1, target_ids)).sum(-1)


@register("loss")
def entropy(student_log_probs, target_ids, target_weights):
    assert target_ids.shape[1] == 0
    return -(student_log_probs.exp() * student_log_probs).sum(-1)
'''

YAML = """\
# Every second position above beta, the expert's two best tokens, cross-entropy.
name: toy
module: {module}
select: every_nth
target: top_two
loss: cross_entropy
stride: 2
"""

SMALL = (
    "experiment=demo",
    "method=toy",
    "data.count=8",
    "sampler.max_new_tokens=64",
    "distiller.steps=4",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=8",
    "evaluator.max_new_tokens=8",
)


@pytest.fixture
def folder(tmp_path):
    """A configuration folder with the toy method, beside its module."""
    module = tmp_path / "my_choices.py"
    module.write_text(MODULE, "utf-8")
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "toy.yaml").write_text(YAML.format(module=module), "utf-8")
    return tmp_path


def run(program, folder, *words):
    return summary_of(program(*SMALL, *words, flags=("--config-dir", str(folder / "conf"))))


@pytest.mark.integration
def test_the_demo_runs_with_choices_from_outside_the_package(program, folder):
    summary = run(program, folder)
    assert (summary["method"], summary["beta"], summary["alpha"]) == ("toy", 0.4, None)
    assert 0 < summary["sample"]["kept"] < summary["sample"]["steps"]
    assert summary["settings"]["method"]["stride"] == 2
    assert summary["evaluate"]["tuned"]["micro_add"]["total"] == 8
    # Twice the loss is another adapter from the same supervision.
    again = run(program, folder, "method.scale=2", "stages=[sample,distill]")
    assert again["sample"]["supervision"] == summary["sample"]["supervision"]
    assert again["distill"]["artifact"] != summary["distill"]["artifact"]
    # The whole loss is scaled: the first losses differ by that factor.
    assert again["distill"]["final_loss"] > 1.5 * summary["distill"]["final_loss"]
    words = ("method.target=none", "method.loss=entropy", "stages=[sample,distill]")
    assert run(program, folder, *words)["distill"]["final_loss"] > 0
    # The file's content is part of the address, since its version constant is the user's.
    edited = MODULE.replace("% stride == 0", "% stride == 1")
    (folder / "my_choices.py").write_text(edited, "utf-8")
    after = run(program, folder, "stages=[sample]")
    assert after["sample"]["artifact"] != summary["sample"]["artifact"]
    assert after["sample"]["kept"] != summary["sample"]["kept"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["method.target=none"],
            "method.loss=cross_entropy needs a target, but method.target=none",
        ),
        (["method.stride=0"], "method.stride=0 is out of range: expected an integer in [1, 100]"),
        (["method.module=taken.py"], "select 'kl_above_beta' is a choice of lr_exp"),
    ],
)
def test_an_invalid_choice_is_refused(program, folder, words, message):
    taken = MODULE.replace("def every_nth", "def kl_above_beta")
    (folder / "taken.py").write_text(taken, "utf-8")
    outcome = program(*SMALL, *words, flags=("--config-dir", str(folder / "conf")))
    assert message in outcome.error
    assert outcome.finished == []
