# %% [markdown]
# # Tables of your own from finished runs
#
# `python -m lr_exp.report FOLDER` makes the paper's tables and figures from any sweep. This
# notebook is for the questions that they do not answer: it makes a few small runs, reads them into
# pandas, and compares them question by question. All runs are of the **micro world** (tiny models
# that ship with the package), kept short; their numbers are its own and show how to read, not what
# to expect.
#
# ## A small sweep
#
# Three thresholds β and two seeds. A seed draws other questions and another order of training. All
# runs share one store, so the two seeds' questions are answered and scored once each, whatever β
# is; so is the untuned expert's evaluation.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import lr_exp
from lr_exp import paired

lr_exp.progress.choose("none")  # no lines about how far a stage is

BASE = [
    "experiment=demo",
    "data.max_questions=40",
    "distiller.steps=25",
    "distiller.learning_rate=8e-4",
    "benchmarks=[micro_add,micro_plain]",
    "evaluator.max_examples=60",
    "wandb.mode=disabled",
]
BETAS, SEEDS = (0.1, 0.4, 1.6), (0, 1)

shared = []
for beta in BETAS:
    for seed in SEEDS:
        settings = lr_exp.compose(*BASE, f"beta={beta}", f"seed={seed}")
        summary = lr_exp.run_experiment(settings, f"runs/beta/beta={beta},seed={seed}")
        sampled = "found" if summary.sample.reused else "made"
        shared.append({"β": beta, "seed": seed, "answers and scores": sampled})
pd.DataFrame(shared)

# %% [markdown]
# On the command line this is `python -m lr_exp -m experiment=demo beta=0.1,0.4,1.6 seed=0,1 …`;
# what follows reads its folder just as well.
#
# ## Runs as a table
#
# `read_runs` finds every run below a folder: one row a run and benchmark. Its columns:

# %%
runs = lr_exp.read_runs("runs/beta")
print(*runs.columns, sep=", ")
shown = ["beta", "seed", "benchmark", "questions", "accuracy_before", "accuracy_after", "gain"]
runs.set_index("run")[shown].round(3)

# %% [markdown]
# Accuracies, gains and standard errors are shares in [0, 1], divergences and β nats. Seconds are
# those of the run that did the work, also where another one found it in the store; there
# `sample_reused` and its fellows are true: leave those rows out of a sum.
#
# A run that failed has a row with its `error`; drop those rows knowingly:

# %%
print("failed:", int(runs.error.notna().sum()))
finished = runs[runs.error.isna()]

# %% [markdown]
# ## Pivots
#
# What went into the training, for each β (a run's own numbers stand in each of its rows, so one
# benchmark is enough):

# %%
of_runs = finished[finished.benchmark == "micro_add"]
cost = of_runs.pivot_table(index="beta", values=["kept", "steps", "tuned_tokens"], aggfunc="mean")
cost["kept (%)"] = (100 * cost.kept / cost.steps).round(1)
cost

# %% [markdown]
# And what came of it, in percent, mean over seeds:

# %%
after, before = finished.accuracy_after, finished.accuracy_before
percent = finished.assign(before=100 * before, after=100 * after)
pivot = percent.pivot_table(index="beta", columns="benchmark", values=["before", "after"])
pivot[["before", "after"]].round(1)

# %% [markdown]
# β = 1.6 trains on as many tokens and gains nothing. Which steps are gone? A label of one token
# repeats the expert; it can move the expert only where it holds two tokens or more. For the first
# seed, out of the same scores:

# %%
labels = lr_exp.sample(lr_exp.compose(*BASE, f"beta={min(BETAS)}")).labels
with_choice = labels[labels.tokens.map(len) > 1]
print(f"highest divergence at a step with a choice: {with_choice.kl_nats.max():.2f} nats")
pd.DataFrame(
    {
        f"β = {beta:g}": {
            "kept": int((labels.kl_nats > beta).sum()),
            "of them with a choice": int((with_choice.kl_nats > beta).sum()),
        }
        for beta in BETAS
    }
).T

# %% [markdown]
# [your_own_pair](your_own_pair.ipynb) shows more of what can be seen before training.
#
# ## Error bars
#
# A mean of runs is uncertain twice: other *questions* would have been answered otherwise, and
# another *seed* would have trained otherwise. `lr_exp.paired` takes a matrix of who was right,
# `(seeds, questions)`, and adds both parts:
#
# $$se^2 = \frac{\mathrm{Var}_{questions}(\text{mean over seeds})}{n} +
# \frac{\mathrm{Var}_{seeds}(\text{accuracy})}{\text{seeds}}$$
#
# The single answers come from `read_answers`: one row a run, model and question.

# %%
answers = lr_exp.read_answers("runs/beta")
print(*answers.columns, sep=", ")
answers = answers.merge(of_runs[["run", "beta", "seed"]], on="run")


def right(beta: float, benchmark: str, who: str = "tuned") -> pd.DataFrame:
    """1.0 where the model was right: a row a seed, a column a question."""
    chosen = answers.query("beta == @beta and benchmark == @benchmark and who == @who")
    return chosen.pivot(index="seed", columns="question_id", values="correct").astype(float)


estimates = {
    (benchmark, beta): paired.accuracy(right(beta, benchmark).to_numpy())
    for benchmark in ("micro_add", "micro_plain")
    for beta in BETAS
}
pd.DataFrame(
    {
        key: {
            "accuracy (%)": 100 * one.mean,
            "± se (points)": 100 * one.stderr,
            "of it questions": 100 * one.question_variance**0.5,
            "of it seeds": 100 * one.seed_variance**0.5,
        }
        for key, one in estimates.items()
    }
).T.round(1).rename_axis(["benchmark", "β"])

# %% [markdown]
# Two seeds say little about the spread over seeds; take five before you believe a small
# difference.

# %%
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(4.5, 2.6), dpi=110, layout="constrained")
    before, ours = lr_exp.style.of_method("baseline"), lr_exp.style.of_method("lightreasoner")
    found = [estimates["micro_add", beta] for beta in BETAS]
    axes.errorbar(
        BETAS,
        [100 * one.mean for one in found],
        yerr=[100 * one.stderr for one in found],
        color=ours.colour,
        marker=ours.marker,
        capsize=2,
        label="LightReasoner, mean of two seeds ± 1 standard error",
    )
    for number in range(len(SEEDS)):
        axes.plot(
            BETAS,
            [100 * one.by_seed[number] for one in found],
            color=lr_exp.style.MUTED.light,
            marker="x",
            linestyle="",
            label="each seed" if number == 0 else None,
        )
    untuned = 100 * right(0.4, "micro_add", "expert").to_numpy().mean()
    axes.axhline(untuned, color=before.colour, linestyle=before.line, label="the expert")
    axes.set(xscale="log", xlabel="β (nats)", ylabel="right on micro_add (%)", ylim=(-3, 103))
    axes.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
    axes.minorticks_off()
    figure.legend(loc="outside lower center")
    plt.show()

# %% [markdown]
# ## The same questions, two variants
#
# Error bars that overlap do not mean that two variants are alike: both answered the *same*
# questions, and what is hard for one is hard for the other. A paired comparison takes that out.

# %%
ours, theirs = right(0.4, "micro_add"), right(0.1, "micro_add")
assert ours.columns.equals(theirs.columns)
ours, theirs = ours.to_numpy(), theirs.to_numpy()

difference = paired.difference(ours, theirs)
unpaired = (paired.accuracy(ours).stderr ** 2 + paired.accuracy(theirs).stderr ** 2) ** 0.5
won, lost = paired.won_and_lost(ours, theirs)
low, high = paired.interval(
    paired.resampled_accuracies([ours, theirs]) @ [1, -1]  # on questions drawn again and again
)
pd.Series(
    {
        "β = 0.4 minus β = 0.1 (points)": f"{100 * difference.mean:+.1f}",
        "± se, paired": f"{100 * difference.stderr:.1f}",
        "± se, as if unpaired": f"{100 * unpaired:.1f}",
        "95 % bootstrap interval over questions": f"{100 * low:+.1f} to {100 * high:+.1f}",
        "questions that β = 0.4 alone has right": won,
        "questions that β = 0.1 alone has right": lost,
        "p, McNemar on the majority over seeds": f"{paired.mcnemar(won, lost):.3f}",
        "p, sign flips of the mean over seeds": f"{paired.sign_flips((ours - theirs).mean(0)):.3f}",
    }
).to_frame("")

# %% [markdown]
# McNemar's test looks only at questions that the two answered differently. With two seeds a
# question counts as right where both were; sign flips use every seed's answer.
#
# ## Look at what was lost
#
# A gain can hide losses: questions that the untuned expert had right and the tuned one has wrong.
# Both are counted over the two seeds:

# %%
sides = answers.pivot(
    index=["beta", "seed", "benchmark", "question_id"], columns="who", values="correct"
).astype(bool)
changes = pd.DataFrame({"won": ~sides.expert & sides.tuned, "lost": sides.expert & ~sides.tuned})
changes.groupby(["benchmark", "beta"]).sum()

# %% [markdown]
# And where one still fails, its output is in the same table, as it was written:

# %%
tuned = answers.query("who == 'tuned' and benchmark == 'micro_add' and beta == 0.4 and seed == 0")
one = tuned[~tuned.correct.astype(bool)].iloc[0]
print(f"{one.question}\n\n{one.output}\n\nread as {one.predicted}, reference {one.reference}")

# %% [markdown]
# ## On to your own
#
# - `lr_exp.read_runs("runs")` reads everything below `runs/`; filter by `sweep`, `method`,
#   `expert`.
# - `python -m lr_exp.report FOLDER` does all of this for a whole sweep, pairs every two rows, and
#   puts the published numbers beside yours; its CSV files load with `pandas.read_csv`.
# - [tour](tour.ipynb) is the method step by step, [your_own_pair](your_own_pair.ipynb) chooses a
#   pair.
