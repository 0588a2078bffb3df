"""The addresses of artifacts: which settings determine which stage."""

from datetime import datetime
from pathlib import Path

import pytest

from lr_exp.config.composition import conf_dir
from lr_exp.distiller.adapter_files import ADAPTER, HISTORY
from lr_exp.pipeline import distilling, evaluating, sampling
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.inputs import Inputs
from lr_exp.store import Artifact, Store
from tests.support.demo import settings_for
from tests.support.tiny import CHAT_TEMPLATE, tiny_model


def addresses(tmp_path: Path, *overrides: str) -> dict[str, str]:
    """The address of every stage, from the recipes alone: the building is left out."""
    made: dict[str, str] = {}

    class Recorder(Store):
        def make(self, recipe, build, *, together=False):
            name = recipe.stage
            if name == "answers":
                name += ", tuned" if recipe.inputs["adapter"] else ", expert"
            made[name] = recipe.address
            facts = {
                "adapter": {"optimizer_steps": 1},
                "answers": {"questions": 1, "finished": 1},
                "grades": {"accuracy": 0, "correct": 0, "total": 1, "stderr": 0},
                "forced": {"accuracy": 0},
            }.get(recipe.stage, {"digest": recipe.address})
            if recipe.stage == "adapter":  # answers are addressed by what is in its files
                (tmp_path / ADAPTER).mkdir(exist_ok=True)
                (tmp_path / ADAPTER / "weights").write_text(recipe.address)
            return Artifact(recipe.stage, recipe.address, tmp_path, facts, 0.0, reused=False)

    settings = settings_for(tmp_path, *overrides)
    inputs = Inputs(settings, [conf_dir()])
    context = RunContext(inputs, Recorder(tmp_path / "unused"))
    (tmp_path / HISTORY).write_text("")
    trajectories = inputs.method.trajectories(context).artifact
    steps = sampling.score_trajectories(context, trajectories)
    tuned = distilling.make_adapter(context, sampling.select_steps(context, trajectories, steps))
    for model in (None, tuned):
        variant = evaluating.Variant(inputs.headline, model)
        evaluating.evaluate_benchmark(context, inputs.benchmarks[0], variant)
    for stage in ("grades", "forced"):  # follow from the answers
        made.pop(stage)
    return made


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return addresses(tmp_path_factory.mktemp("before"))


STAGES = ["answers, expert", "rollout", "score", "supervision", "adapter", "answers, tuned"]
DOWNSTREAM = {
    **{stage: {*STAGES[number:]} for number, stage in enumerate(STAGES)},
    "answers": {"answers, expert", "answers, tuned"},
    "everything": {*STAGES},
    "nothing": set(),
}

OVERRIDES = {
    "everything": "control_tokens=true",
    "rollout": "sampler.max_new_tokens=17 sampler.system_prompt=Think. sampler.batch_size=3 "
    "sampler.prompt=plain data.max_questions=9",
    "score": "amateur=micro_near sampler.support_floor=0.01 sampler.tokens_per_pass=99",
    "supervision": "alpha=0.5 beta=0.1 method=no_selection method=no_contrast",
    "adapter": "distiller.steps=9 distiller.batch_size=9 distiller.learning_rate=1e-5 "
    "distiller.schedule=cosine distiller.lora_r=4 distiller.order=steps",
    "answers": "evaluator.system_prompt=Think. evaluator.prompts=[plain] "
    "evaluator.max_new_tokens=17 evaluator.max_examples=9",
    # The template prints no date.
    "nothing": "distiller.checkpoint_seconds=7 distiller.merge=true distiller.parallel=fsdp "
    "wandb.project=other store=elsewhere prompt_date=2020-02-03",
}


@pytest.mark.parametrize(
    ("override", "first_changed"),
    [(word, stage) for stage, words in OVERRIDES.items() for word in words.split()],
)
def test_a_setting_changes_the_addresses_of_what_it_determines_and_no_others(
    before, tmp_path, override, first_changed
):
    """An address that forgets a setting shows one run's numbers as another's."""
    after = addresses(tmp_path, override)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == DOWNSTREAM[first_changed]


@pytest.fixture
def models(tmp_path):
    """Overrides for two models whose chat templates print the date."""
    template = "{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE
    for seed, name in enumerate(("expert", "amateur")):
        tiny_model(tmp_path, name, seed=seed, chat_template=template)
    return [f"{name}.path={tmp_path / name}" for name in ("expert", "amateur")]


def test_the_date_that_a_template_prints_is_part_of_every_address(models, tmp_path, set_clock):
    """Prompts changed overnight and one address held the answers to both."""
    before = addresses(tmp_path, *models)
    after = addresses(tmp_path, *models, "prompt_date=2020-02-03")
    assert [name for name in before if before[name] == after[name]] == []
    set_clock(datetime(2031, 12, 30))
    assert addresses(tmp_path, *models) == before


def test_what_prompts_render_to_is_part_of_every_address(before, tmp_path, monkeypatch):
    """Also where nobody has raised a version after a change to rendering."""
    monkeypatch.setattr("lr_exp.models.prompts.render_prompt", lambda *_: [1, 2])
    after = addresses(tmp_path)
    assert [name for name in before if before[name] == after[name]] == []


def test_the_spelling_of_a_path_changes_no_address(models, tmp_path, monkeypatch):
    """One model trained the same adapter four times."""
    monkeypatch.chdir(tmp_path)
    before = addresses(tmp_path, *models)
    for spelling in ("expert", "expert/", "./expert"):
        assert addresses(tmp_path, *models, f"expert.path={spelling}") == before
    (tmp_path / "expert").rename(tmp_path / "moved")
    assert addresses(tmp_path, *models, "expert.path=moved") == before


def test_hard_labels_do_not_depend_on_alpha_nor_all_steps_on_beta(tmp_path):
    base = ["method=neither"]
    assert addresses(tmp_path, *base) == addresses(tmp_path, *base, "alpha=0.5", "beta=3")


def test_a_corrected_reference_regenerates_no_answer(tmp_path):
    file = tmp_path / "mine.jsonl"
    words = ["data=jsonl", f"data.path={file}"]
    file.write_text('{"question": "What?", "answer": "1"}', "utf-8")
    before = addresses(tmp_path, *words)
    file.write_text('{"question": "What?", "answer": "2"}', "utf-8")
    assert addresses(tmp_path, *words) == before
