# %% [markdown]
# # Which amateur, which β, which α?
#
# A pair of models can be *profiled* before any training: the expert answers some questions, the
# amateur reads the answers, and every step (token position) gets a divergence. This takes two
# passes and no reference answers, and shows whether LightReasoner is likely to work. This notebook
# profiles five amateurs of the **micro world** (tiny models that ship with the package; their
# numbers are not comparable with the paper's) against one expert on the same questions. The end
# shows how to profile your own two models.

# %%
import logging
import math

import matplotlib.pyplot as plt
import pandas as pd
import torch

import lr_exp
from lr_exp import contrast

lr_exp.progress.choose("none")  # no progress bars
logging.getLogger("lr_exp").setLevel(logging.ERROR)  # warnings are printed below

BASE = ["experiment=demo", "data.max_questions=80", "wandb.mode=disabled"]
AMATEURS = {
    "micro": "trained on 5 % careful solutions",
    "micro_near": "trained on 14 % careful solutions",
    "micro_peer": "trained like the expert, on 40 %",
    "micro_master": "trained on 90 %, better than the expert",
    "micro_early_exit": "the expert without the third of its four layers",
}
COLOURS = lr_exp.style.HUES[1:]
STYLES = dict(zip(AMATEURS, zip(COLOURS, ("-", "--", ":", "-.", "-"), strict=False), strict=True))
samples = {name: lr_exp.sample(lr_exp.compose(*BASE, f"amateur={name}")) for name in AMATEURS}

# %% [markdown]
# The answers are the expert's, so they were generated once and are the same for all five amateurs.
# Only the scores differ.

# %%
first = samples["micro"]
assert all(sample.answers == first.answers for sample in samples.values())
print(f"{len(first.answers)} answers, {len(first.steps):,} steps")
print(first.answers[0].question, f"\n{first.answers[0].text}")

# %% [markdown]
# ## The profile
#
# The last row has the paper's values, for models with billions of parameters on GSM8K. The micro
# world's values are not expected to match them.

# %%
profile = pd.DataFrame(
    {
        name: {
            "below 0.1 nat": sample.facts["share_below_0.1"],
            "above 0.4 nats": sample.facts["share_above_0.4"],
            "same top token": sample.facts["share_same_top1"],
            "mean D": sample.facts["kl_mean"],
            "mean D, same top token": sample.facts["kl_mean_same_top1"],
            "mean D, other top token": sample.facts["kl_mean_other_top1"],
        }
        for name, sample in samples.items()
    }
).T
published = {  # arXiv 2510.07962; the shares are approximate
    "below 0.1 nat": 0.6,
    "above 0.4 nats": 0.2,
    "mean D, same top token": 0.166,
    "mean D, other top token": 1.99,
}
table = pd.concat([profile, pd.DataFrame({"(published)": published}).T])
table.map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")

# %%
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(8, 2.8), dpi=110, layout="constrained")
    for name, sample in samples.items():
        colour, line = STYLES[name]
        counts, width = sample.facts["histogram"]["counts"], sample.facts["histogram"]["bin_nats"]
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
# - **Mostly low divergence, with a tail** (`micro`): most steps are below 0.1 nat, so the two
#   models mostly agree, and a clear share is above 0.4, so there are places where they differ.
# - **No tail** (`micro_peer`): the models are nearly equal. No step is above β, so nothing would be
#   trained.
# - **Little low divergence** (none of these five): the amateur is not weaker but *different*:
#   broken, trained for something else, or prompted in a format that it was not trained on. Then
#   most labels only reinforce the difference in style, and the few useful steps are lost among
#   them.
#
# ## β: how many steps are kept?
#
# Scores do not depend on β, so one table gives the whole curve. Where the curve is flat, β matters
# little. Where it is steep, a small change of β gives another training set.

# %%
betas = [0.02 * 1.15**i for i in range(41)]
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(8, 2.8), dpi=110, layout="constrained")
    for name, sample in samples.items():
        colour, line = STYLES[name]
        shares = [100 * (sample.steps.kl_nats > beta).mean() for beta in betas]
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
            name: int((sample.steps.kl_nats > beta).sum()) for name, sample in samples.items()
        }
        for beta in (0.1, 0.2, 0.4, 0.8, 1.6)
    }
)

# %% [markdown]
# ## α: how many tokens can the label choose from?
#
# The mask keeps the tokens with at least α times the expert's top probability. If it has one token,
# the label is the expert's own token: the step keeps the expert as it is and teaches nothing new.
# So count the kept steps with a multi-token label. If α is too low, the mask includes tokens that
# the expert considers improbable, and their ratio of two small probabilities is unreliable.

# %%
alphas = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8)


def mask_sizes(sample: lr_exp.Sample, alpha: float) -> pd.Series:
    """Tokens in the mask (Eq. 4) at the kept steps."""
    supports = sample.steps.support_expert[sample.steps.kept]
    return supports.map(lambda logs: int(contrast.plausible(torch.tensor(logs), alpha).sum()))


pd.DataFrame(
    {
        f"α = {alpha:g}": {
            name: f"{(mask_sizes(sample, alpha) > 1).sum()} of {sample.facts['kept']}"
            for name, sample in samples.items()
        }
        for alpha in alphas
    }
).rename_axis("kept steps with a multi-token label")

# %% [markdown]
# The micro world's expert is certain about most tokens, so few masks have more than one. Expect
# more with a real expert at α = 0.2. What matters is that some have, at steps where there is a real
# choice.
#
# ## Read the labels
#
# To see *which* choices the labels make, read those with more than one token. The table counts them
# by the expert's top token and the label's top token, omitting counts below three:


# %%
def ambiguous_steps(name: str) -> pd.DataFrame:
    """Kept steps with a multi-token label, with the expert's and the label's top tokens."""
    sample = samples[name]
    labels = sample.labels[["answer", "step", "tokens", "weights"]]
    steps = sample.steps.merge(labels, on=["answer", "step"])
    steps = steps[steps.tokens.map(len) > 1]
    pairs = zip(steps.tokens, steps.weights, strict=True)
    label_top1 = [repr(tokens[weights.index(max(weights))]) for tokens, weights in pairs]
    return steps.assign(expert_top1=steps.expert_top1.map(repr), label_top1=label_top1)


ambiguous = pd.concat({name: ambiguous_steps(name) for name in AMATEURS}, names=["amateur"])
ambiguous.groupby(["amateur", "expert_top1", "label_top1"]).size().to_frame("kept steps").query(
    "`kept steps` > 2"
)

# %% [markdown]
# The table shows what each pair would teach. With `micro` and `micro_near` the labels replace `;`
# and `, so` (continue without the carry) by `(note 1)` (mark the carry), so they teach the careful
# way. With `micro_master` they confirm the expert's careless choice. `micro_peer` keeps no step,
# and `micro_early_exit` has no multi-token label.
#
# ## What a profile cannot show
#
# The divergence has no sign. `micro_master` is **better** than the expert. Its profile has low
# divergence and a tail, as it should, and by the table for α it is the best of the five: nearly
# every label is multi-token. But the ratio of expert to amateur now favours what the better model
# would *not* do, so training would make the expert less careful. The profile alone does not reveal
# this. Two checks do: reading labels, as above, and measuring both models on questions with known
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
# (One sampled answer per question at temperature 1, which shows what a model can do and not only
# what it prefers.) The run itself warns about such pairs; its summary has the warnings:

# %%
print(*warnings, sep="\n")

# %% [markdown]
# | | tail | multi-token labels | gap | verdict |
# |---|---|---|---|---|
# | `micro` | clear | some, towards the careful way | positive | use it |
# | `micro_near` | clear | a few, towards the careful way | positive | works, less well |
# | `micro_peer` | none | none | not distinguishable from 0 | nothing to learn |
# | `micro_early_exit` | thin | none | positive | labels repeat the expert |
# | `micro_master` | thin | nearly all, towards the careless way | **negative** | do not use it |
#
# No single number decides. `micro_early_exit` has a tail and a large gap, but it is weaker at
# everything that the missing layer did, not at the skill in question. The sweep
# `micro_expertise_gap` trains with each of these amateurs and three seeds; `docs/micro_world.md`
# has its results.
#
# ## Your own pair
#
# One command profiles two models of yours. The questions need no answers; the file has one
# `{"question": "…"}` per line:
#
# ```
# python -m lr_exp expert.path=FOLDER amateur.path=FOLDER data=jsonl data.path=questions.jsonl \
#     data.max_questions=100 'stages=[sample]'
# ```
#
# A Hugging Face model id works in place of a folder. In a notebook, all of the above applies to the
# result of:
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
# Without a second model, use `amateur=early_exit 'amateur.drop_layers=[22]'`: the expert without
# some of its layers. Then choose β so that 10 to 20 % of the steps are kept, leave α at 0.2 unless
# all labels have a single token, read twenty labels, and measure the gap. To train, run the same
# command without `stages`.
