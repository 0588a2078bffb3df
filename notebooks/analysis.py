# %% [markdown]
# # Your own tables from finished runs
#
# `python -m lr_exp.report FOLDER` makes the paper's tables and figures from any sweep. This
# notebook is for other questions: it makes a few small runs, loads them into pandas and compares
# them question by question. All runs use the **micro world** (tiny models that ship with the
# package) and are kept short; they show how to read results, not what results to expect.
#
# ## A small sweep
#
# Three thresholds β and two seeds. The seed selects the questions and the order of training. All
# runs share one store, so each seed's questions are answered and scored only once, for all β, and
# the untuned expert is evaluated only once.

# %%
import logging

import matplotlib.pyplot as plt
import pandas as pd

import lr_exp
from lr_exp import paired

lr_exp.progress.choose("none")  # no progress bars
logging.disable(logging.WARNING)  # runs with β = 1.6 warn of what is shown below

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

reuse = []
for beta in BETAS:
    for seed in SEEDS:
        settings = lr_exp.compose(*BASE, f"beta={beta}", f"seed={seed}")
        summary = lr_exp.run_experiment(settings, f"runs/beta/beta={beta},seed={seed}")
        sampled = "reused" if summary.sample.reused else "computed"
        reuse.append({"β": beta, "seed": seed, "answers and scores": sampled})
pd.DataFrame(reuse)

# %% [markdown]
# On the command line this is `python -m lr_exp -m experiment=demo beta=0.1,0.4,1.6 seed=0,1 …`; the
# cells below also work with its folder.
#
# ## Runs as a table
#
# `read_runs` finds every run below a folder and returns one row per run and benchmark. Its columns:

# %%
runs = lr_exp.read_runs("runs/beta")
print(*runs.columns, sep=", ")
shown = ["beta", "seed", "benchmark", "questions", "accuracy_before", "accuracy_after", "gain"]
runs.set_index("run")[shown].round(3)

# %% [markdown]
# Accuracies, gains and standard errors are in [0, 1]; divergences and β are in nats. If a run
# reused a stage's result from the store, its `…_seconds` are those of the run that computed the
# result and its `…_reused` is true: leave such rows out when you add up times.
#
# A failed run has a row with its `error`. Count such rows before you drop them:

# %%
print("failed:", int(runs.error.notna().sum()))
finished = runs[runs.error.isna()]

# %% [markdown]
# ## Pivots
#
# The training data for each β (columns about the run are the same in all its rows, so one benchmark
# is enough):

# %%
per_run = finished[finished.benchmark == "micro_add"]
cost = per_run.pivot_table(index="beta", values=["kept", "steps", "tuned_tokens"], aggfunc="mean")
cost["kept (%)"] = (100 * cost.kept / cost.steps).round(1)
cost

# %% [markdown]
# The accuracies, in percent, averaged over seeds:

# %%
after, before = finished.accuracy_after, finished.accuracy_before
percent = finished.assign(before=100 * before, after=100 * after)
pivot = percent.pivot_table(index="beta", columns="benchmark", values=["before", "after"])
pivot[["before", "after"]].round(1)

# %% [markdown]
# β = 1.6 trains on as many tokens and gains nothing. Which steps are missing? A label with one
# token repeats the expert's own token; only a multi-token label can change the expert. For the
# first seed, from the same scores:

# %%
labels = lr_exp.sample(lr_exp.compose(*BASE, f"beta={min(BETAS)}")).labels
multi_token = labels[labels.tokens.map(len) > 1]
print(f"highest divergence with a multi-token label: {multi_token.kl_nats.max():.2f} nats")
pd.DataFrame(
    {
        f"β = {beta:g}": {
            "kept": int((labels.kl_nats > beta).sum()),
            "multi-token label": int((multi_token.kl_nats > beta).sum()),
        }
        for beta in BETAS
    }
).T

# %% [markdown]
# [your_own_pair](your_own_pair.ipynb) shows more checks before training.
#
# ## Error bars
#
# The mean over runs has two sources of error: the choice of *questions* and the *seed* of training.
# `lr_exp.paired` takes a matrix of correct answers, `(seeds, questions)`, and adds both:
#
# $$se^2 = \frac{\mathrm{Var}_{questions}(\text{mean over seeds})}{n} +
# \frac{\mathrm{Var}_{seeds}(\text{accuracy})}{\text{seeds}}$$
#
# `read_answers` returns the individual answers, one row per run, model and question.

# %%
answers = lr_exp.read_answers("runs/beta")
print(*answers.columns, sep=", ")
answers = answers.merge(per_run[["run", "beta", "seed"]], on="run")


def correct_answers(beta: float, benchmark: str, who: str = "tuned") -> pd.DataFrame:
    """1.0 for a correct answer, else 0.0; one row per seed, one column per question."""
    rows = answers.query("beta == @beta and benchmark == @benchmark and who == @who")
    return rows.pivot(index="seed", columns="question_id", values="correct").astype(float)


estimates = {
    (benchmark, beta): paired.accuracy(correct_answers(beta, benchmark).to_numpy())
    for benchmark in ("micro_add", "micro_plain")
    for beta in BETAS
}
pd.DataFrame(
    {
        key: {
            "accuracy (%)": 100 * estimate.mean,
            "± se (points)": 100 * estimate.stderr,
            "se from questions": 100 * estimate.question_variance**0.5,
            "se from seeds": 100 * estimate.seed_variance**0.5,
        }
        for key, estimate in estimates.items()
    }
).T.round(1).rename_axis(["benchmark", "β"])

# %% [markdown]
# Two seeds are too few to estimate the spread over seeds. Use at least five before you trust a
# small difference.

# %%
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(4.5, 2.6), dpi=110, layout="constrained")
    before, ours = lr_exp.style.method_look("baseline"), lr_exp.style.method_look("lightreasoner")
    by_beta = [estimates["micro_add", beta] for beta in BETAS]
    axes.errorbar(
        BETAS,
        [100 * estimate.mean for estimate in by_beta],
        yerr=[100 * estimate.stderr for estimate in by_beta],
        color=ours.colour,
        marker=ours.marker,
        capsize=2,
        label="LightReasoner, mean of two seeds ± 1 standard error",
    )
    for number in range(len(SEEDS)):
        axes.plot(
            BETAS,
            [100 * estimate.by_seed[number] for estimate in by_beta],
            color=lr_exp.style.MUTED,
            marker="x",
            linestyle="",
            label="each seed" if number == 0 else None,
        )
    untuned = 100 * correct_answers(0.4, "micro_add", "expert").to_numpy().mean()
    axes.axhline(untuned, color=before.colour, linestyle=before.line, label="untuned expert")
    axes.set(xscale="log", xlabel="β (nats)", ylabel="accuracy on micro_add (%)", ylim=(-3, 103))
    axes.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
    axes.minorticks_off()
    figure.legend(loc="outside lower center")
    plt.show()

# %% [markdown]
# ## The same questions, two variants
#
# Two variants may differ significantly even if their error bars overlap: both answered the *same*
# questions, and a hard question is hard for both. A paired comparison removes this shared variance.

# %%
ours, theirs = correct_answers(0.4, "micro_add"), correct_answers(0.1, "micro_add")
assert ours.columns.equals(theirs.columns)
ours, theirs = ours.to_numpy(), theirs.to_numpy()

difference = paired.difference(ours, theirs)
unpaired = (paired.accuracy(ours).stderr ** 2 + paired.accuracy(theirs).stderr ** 2) ** 0.5
won, lost = paired.won_and_lost(ours, theirs)
low, high = difference.ci95
pd.Series(
    {
        "β = 0.4 minus β = 0.1 (points)": f"{100 * difference.mean:+.1f}",
        "± se, paired": f"{100 * difference.stderr:.1f}",
        "± se, unpaired": f"{100 * unpaired:.1f}",
        "95 % interval over questions": f"{100 * low:+.1f} to {100 * high:+.1f}",
        "questions that only β = 0.4 answers correctly": won,
        "questions that only β = 0.1 answers correctly": lost,
        "p, McNemar on the majority over seeds": f"{paired.mcnemar(won, lost):.3f}",
        "p, sign flips of the mean over seeds": f"{paired.sign_flips((ours - theirs).mean(0)):.3f}",
    }
).to_frame("")

# %% [markdown]
# McNemar's test uses only the questions on which the two variants differ. With two seeds, a
# question counts as correct only if it is for both; the sign-flip test uses every seed's answer.
#
# ## Look at the losses
#
# A gain can hide losses: questions that the untuned expert answers correctly and the tuned one does
# not. The counts are totals over the two seeds:

# %%
sides = answers.pivot(
    index=["beta", "seed", "benchmark", "question_id"], columns="who", values="correct"
).astype(bool)
changes = pd.DataFrame({"won": ~sides.expert & sides.tuned, "lost": sides.expert & ~sides.tuned})
changes.groupby(["benchmark", "beta"]).sum()

# %% [markdown]
# The same table has the full outputs, for example of a question that is still wrong:

# %%
tuned = answers.query("who == 'tuned' and benchmark == 'micro_add' and beta == 0.4 and seed == 0")
row = tuned[~tuned.correct.astype(bool)].iloc[0]
print(f"{row.question}\n\n{row.output}\n\nextracted {row.predicted}, reference {row.reference}")

# %% [markdown]
# ## Your own runs
#
# - `lr_exp.read_runs("runs")` reads everything below `runs/`; filter by `sweep`, `method` or
#   `expert`.
# - `python -m lr_exp.report FOLDER` does all of this for a whole sweep: it compares every pair of
#   rows and lists the published numbers beside yours. `pandas.read_csv` loads its CSV files.
# - [tour](tour.ipynb) explains the method step by step, [your_own_pair](your_own_pair.ipynb) helps
#   to choose a pair.
