# %% [markdown]
# # Which amateur, which β, which α?
#
# Before any training, a pair of models can be *profiled*: the expert answers some questions, the
# amateur reads along, and every step gets a divergence. It takes two passes and no reference
# answer, and it says much about whether LightReasoner has something to work with. Here five
# amateurs of the **micro world** (tiny models that ship with the package; their numbers are their
# own) are profiled against one expert on the same questions. At the end: the same for your own two
# models.

# %%
import logging
import math

import matplotlib.pyplot as plt
import pandas as pd
import torch

import lr_exp
from lr_exp import contrast

lr_exp.progress.choose("none")  # no lines about how far a stage is
logging.getLogger("lr_exp").setLevel(logging.ERROR)  # warnings of runs are shown where they belong

BASE = ["experiment=demo", "data.max_questions=80", "wandb.mode=disabled"]
AMATEURS = {
    "micro": "saw hardly any careful solution",
    "micro_near": "half-way between that and the expert",
    "micro_peer": "raised on the expert's own mixture",
    "micro_master": "better than the expert",
    "micro_early_exit": "the expert without its third layer of four",
}
COLOURS = [hue.light for hue in lr_exp.style.HUES[1:]]
LOOKS = dict(zip(AMATEURS, zip(COLOURS, ("-", "--", ":", "-.", "-"), strict=False), strict=True))
settings = {name: lr_exp.compose(*BASE, f"amateur={name}") for name in AMATEURS}
samples = {name: lr_exp.sample(one) for name, one in settings.items()}

# %% [markdown]
# The answers are the expert's, so they were written once and are the same for all five; only the
# reading differs.

# %%
first = samples["micro"]
assert all(one.answers == first.answers for one in samples.values())
print(f"{len(first.answers)} answers, {len(first.steps):,} steps")
print(first.answers[0].question, f"\n{first.answers[0].text}")

# %% [markdown]
# ## The profile
#
# The last row is what the paper reports of its own divergences, with models of billions of weights
# on GSM8K: a reference for the shape, not for the micro world.

# %%
profile = pd.DataFrame(
    {
        name: {
            "below 0.1 nat": one.facts["share_below_0.1"],
            "above 0.4 nats": one.facts["share_above_0.4"],
            "same first token": one.facts["share_same_top1"],
            "mean D": one.facts["kl_mean"],
            "mean D, same first token": one.facts["kl_mean_same_top1"],
            "mean D, other first token": one.facts["kl_mean_other_top1"],
        }
        for name, one in samples.items()
    }
).T
published = {  # arXiv 2510.07962; "about" for the shares
    "below 0.1 nat": 0.6,
    "above 0.4 nats": 0.2,
    "mean D, same first token": 0.166,
    "mean D, other first token": 1.99,
}
beside = pd.concat([profile, pd.DataFrame({"(published)": published}).T])
beside.map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")

# %%
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(8, 2.8), dpi=110, layout="constrained")
    for name, one in samples.items():
        colour, line = LOOKS[name]
        counts, width = one.facts["histogram"]["counts"], one.facts["histogram"]["bin_nats"]
        axes.stairs(
            [count / sum(counts) for count in counts],
            [width * i for i in range(len(counts) + 1)],
            color=colour,
            linestyle=line,
            label=name,
        )
    axes.set(yscale="log", xlabel="D (nats)", ylabel="share of steps", xlim=(0, 5))
    axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right upper")
    plt.show()

# %% [markdown]
# What to look for:
#
# - **Mostly silence, and a tail.** Most steps below 0.1 nat: the two speak the same language and
#   differ in few places. A clear share above 0.4: there are such places. `micro` looks like this.
# - **No tail** (`micro_peer`): two equals. Nothing is above β, nothing would be trained.
# - **Little silence** (none of these five): the amateur would not be weaker but *foreign*: broken,
#   trained for something else, or asked in a form that it does not know. The label then says "be
#   yourself" at every step, and the few steps that matter drown.
#
# ## β: how many steps are kept?
#
# Scores know no β, so the whole curve comes from one table. On a flat stretch β does not matter;
# where the curve falls steeply, a small change of β is another training set.

# %%
betas = [0.02 * 1.15**i for i in range(41)]
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(8, 2.8), dpi=110, layout="constrained")
    for name, one in samples.items():
        colour, line = LOOKS[name]
        shares = [100 * (one.steps.kl_nats > beta).mean() for beta in betas]
        axes.plot(betas, shares, color=colour, linestyle=line, label=name)
    axes.axvline(0.4, color="black", linestyle="--", linewidth=0.8)
    axes.annotate("the paper's β", (0.42, 0.92), xycoords=("data", "axes fraction"), size=7)
    axes.set(xscale="log", xlabel="β (nats)", ylabel="kept steps (%)")
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right upper")
    plt.show()

pd.DataFrame(
    {
        f"β = {beta:g}": {
            name: int((one.steps.kl_nats > beta).sum()) for name, one in samples.items()
        }
        for beta in (0.1, 0.2, 0.4, 0.8, 1.6)
    }
)

# %% [markdown]
# ## α: how many tokens may the label choose from?
#
# The mask keeps the expert's tokens with at least α times its top probability. A mask of one token
# gives a label that repeats the expert; the step then holds the expert in place and teaches
# nothing. So look at how many kept steps have two tokens or more. Too low an α lets in tokens that
# the expert does not mean, where a ratio of two small numbers decides.

# %%
alphas = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8)


def mask_sizes(sample: lr_exp.Sample, alpha: float) -> pd.Series:
    """Tokens in the mask (Eq. 4) at the kept steps."""
    supports = sample.steps.support_expert[sample.steps.kept]
    return supports.map(lambda logs: int(contrast.plausible(torch.tensor(logs), alpha).sum()))


pd.DataFrame(
    {
        f"α = {alpha:g}": {
            name: f"{(mask_sizes(one, alpha) > 1).sum()} of {one.facts['kept']}"
            for name, one in samples.items()
        }
        for alpha in alphas
    }
).rename_axis("kept steps with a choice")

# %% [markdown]
# The micro world's expert is sure of most tokens, so few masks are wide. With a real expert at α =
# 0.2 expect more; what matters is that some are, and that they are where you would expect a
# choice.
#
# ## Read the labels
#
# Numbers do not say *which* choices. Labels with more than one token, read by a person, do. Here
# they are counted: what the expert would say, what the label prefers, and how often, if three times
# or more:


# %%
def forks(name: str) -> pd.DataFrame:
    """Kept steps whose label has a choice: the label's first token against the expert's."""
    sample = samples[name]
    labels = sample.labels[["answer", "step", "tokens", "weights"]]
    both = sample.steps.merge(labels, on=["answer", "step"])
    both = both[both.tokens.map(len) > 1]
    pairs = zip(both.tokens, both.weights, strict=True)
    label = [repr(tokens[weights.index(max(weights))]) for tokens, weights in pairs]
    return both.assign(expert_says=both.expert_top1.map(repr), label_says=label)


told = pd.concat({name: forks(name) for name in AMATEURS}, names=["amateur"])
told.groupby(["amateur", "expert_says", "label_says"]).size().to_frame("kept steps").query(
    "`kept steps` > 2"
)

# %% [markdown]
# Here you see at a glance what each pair would teach. With `micro` the labels turn `;` and `, so`
# (go on without the carry) into `(note 1)` (take it along): towards care. With `micro_master` they
# confirm what the expert does already: away from care. `micro_peer` keeps no step, and at the
# steps of `micro_early_exit` there is no choice.
#
# ## What a profile cannot tell
#
# A divergence has no sign. `micro_master` is **better** than the expert. Its profile is silent with
# a tail, as it should be, and by the table for α it looks like the best of the five: nearly every
# kept step has a choice. But the ratio expert : amateur now favours what the better model would
# *not* do, and training on it moves the expert away from care. The profile alone does not show
# this. Two things do: reading labels, as above, and measuring the gap on questions with known
# answers:

# %%
probe = [
    *("stages=[evaluate]", "evaluator.gap=sampled", "evaluator.max_examples=60"),
    "benchmarks=[micro_add]",
]
gaps, warnings = {}, []
for name in AMATEURS:
    one = lr_exp.compose(*BASE, f"amateur={name}", *probe)
    summary = lr_exp.run_experiment(one, f"runs/gap/{name}")
    warnings += [f"{name}: {warning}" for warning in summary.warnings]
    measured = summary.evaluate.gap
    expert, amateur = measured.expert["micro_add"], measured.amateur["micro_add"]
    gap = expert.accuracy - amateur.accuracy
    gaps[name] = {
        "expert (%)": 100 * expert.accuracy,
        "amateur (%)": 100 * amateur.accuracy,
        "gap (points)": 100 * gap,
        "± 1 standard error": 100 * math.hypot(expert.stderr, amateur.stderr),
        "above 0.4 nats (%)": 100 * profile.loc[name, "above 0.4 nats"],
    }
pd.DataFrame(gaps).T.round(1)

# %% [markdown]
# (One answer a question, drawn at temperature 1: what a model can do, not only what it prefers.) A
# run says so itself; its summary keeps the warnings:

# %%
print(*warnings, sep="\n")

# %% [markdown]
# | | tail | choices in it | gap | verdict |
# |---|---|---|---|---|
# | `micro` | clear | some, towards care | positive | use it |
# | `micro_near` | thinner | a few, towards care | positive | works, more weakly |
# | `micro_peer` | none | | not clear of 0 | nothing to learn |
# | `micro_early_exit` | thin | none | positive | labels repeat the expert |
# | `micro_master` | thin | all, away from care | **negative** | never: it points backwards |
#
# No single number decides. The early exit has a tail and a good gap, but it is weaker in
# everything that a layer did, not in the skill in question. The sweep `micro_expertise_gap` trains
# with each of these amateurs and three seeds; its table in the README has what came of it.
#
# ## Your own pair
#
# One line profiles two models of yours, with unlabelled questions, one `{"question": "…"}` a line:
#
# ```
# python -m lr_exp expert.path=FOLDER amateur.path=FOLDER data=jsonl data.path=questions.jsonl \
#     data.max_questions=100 'stages=[sample]'
# ```
#
# A hub id works in place of a folder. The same in a notebook, with everything above open to you:
#
# ```python
# settings = lr_exp.compose(
#     "expert.path=…", "amateur.path=…", "data=jsonl", "data.path=questions.jsonl",
#     "data.max_questions=100",
# )
# sample = lr_exp.sample(settings)
# sample.facts, sample.steps, sample.labels
# ```
#
# No second model at hand? `amateur=early_exit 'amateur.drop_layers=[22]'` leaves layers of the
# expert out. Then choose β where about a tenth to a fifth of the steps are kept, leave α at 0.2
# unless masks are all of one token, read twenty labels, and measure the gap. Training is the same
# command without `stages`.
