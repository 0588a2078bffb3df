# %% [markdown]
# # LightReasoner on one question
#
# A weak model can show a strong one which of its own steps are worth repeating. This is the whole
# method ([arXiv 2510.07962](https://arxiv.org/abs/2510.07962)), first on one question with every
# tensor in view, then on all questions of the demo, with accuracy before and after.
#
# The two models here are tiny and ship with the package: the **micro world**, addition stories
# solved digit by digit. The *expert* was trained on solutions of which a minority is careful, the
# others forget every carry. So its greedy answers are careless, and care is its second choice. The
# *amateur* has hardly seen care at all. Numbers of this world are its own, never the paper's; it
# shows the mechanism, in a minute and without a GPU.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

import lr_exp
from lr_exp import contrast

lr_exp.progress.choose("none")  # no lines about how far a stage is
kept_colour = lr_exp.style.of_method("lightreasoner").colour  # as in every figure of the project
other_colour = lr_exp.style.of_method("baseline").colour

settings = lr_exp.compose(
    "experiment=demo",
    "data.max_questions=150",
    "benchmarks=[micro_add,micro_phrased,micro_plain]",
    "evaluator.max_examples=100",
    "wandb.mode=disabled",
)
pair = lr_exp.load_pair(settings)
pd.DataFrame(
    {
        role: {
            "layers": one.model.config.num_hidden_layers,
            "hidden size": one.model.config.hidden_size,
            "weights": f"{one.model.num_parameters():,}",
            "token ids": one.vocabulary_size,
        }
        for role, one in {"expert": pair.expert, "amateur": pair.amateur}.items()
    }
)

# %% [markdown]
# ## The expert answers
#
# Greedily, in its own words. The reference answer is printed for you: the method never reads it.

# %%
question = lr_exp.read_questions(settings)[0]
(answer,) = pair.roll_out([question])
print(question.text, f"\n\n{answer.text}\n\nreference: {question.answer}")

# %% [markdown]
# The expert adds each column correctly, and never takes a carry into the next one: it starts the
# tens as if the units had not overflowed. A careful solution would mark the carry, `(note 1)`,
# right after the units, and add it in. That mark is a token like any other. Where does the expert
# *decide* against it?
#
# ## Both models read the same text
#
# The amateur writes nothing. It reads what the expert wrote, and at every step both say what they
# would write next. One pass of each model gives all steps at once, a row of logits each.

# %%
expert_logits, amateur_logits = pair.logits(answer)
expert = contrast.log_probs(expert_logits)  # log π_E(a | s_t)
amateur = contrast.log_probs(amateur_logits)  # log π_A(a | s_t)
print("(steps, vocabulary):", tuple(expert.shape), tuple(amateur.shape))


def read_step(step: int, count: int = 4) -> pd.DataFrame:
    """Both models' probabilities of the expert's first tokens after `step` generated ones."""
    ids = expert[step].topk(count).indices
    return pd.DataFrame(
        {
            "token": [repr(text) for text in pair.texts(ids.tolist())],
            "π_E": expert[step, ids].exp(),
            "π_A": amateur[step, ids].exp(),
        }
    ).round(3)


print("after", repr("".join(answer.tokens[:3])))
read_step(3)

# %% [markdown]
# ## Eq. 1-2: how far apart are they?
#
# $$D_t = \sum_a \pi_E(a \mid s_t)\,\log\frac{\pi_E(a \mid s_t)}{\pi_A(a \mid s_t)}$$
#
# One number a step, in nats, summed over the whole vocabulary and weighted by the expert: 0 where
# both would say the same.

# %%
kl = contrast.kl_nats(expert, amateur)  # D_t
print("(steps,):", tuple(kl.shape))

with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(9, 2.4), dpi=110, layout="constrained")
    is_kept = (kl > settings.beta).tolist()
    axes.bar(range(len(kl)), kl, color=[kept_colour if one else other_colour for one in is_kept])
    axes.axhline(settings.beta, color=other_colour, linestyle="--", linewidth=0.8)
    axes.annotate(f"β = {settings.beta}", (len(kl) - 1, settings.beta + 0.06), ha="right", size=7)
    labels = [token.strip(" ").replace("\n", "↵") for token in answer.tokens]
    axes.set_xticks(range(len(kl)), labels, rotation=90, family="monospace", fontsize=7)
    axes.set_xlim(-1, len(kl))
    axes.set_ylabel("D (nats)")
    axes.set_xlabel("the expert's answer, token by token")
    plt.show()

# %% [markdown]
# Most tokens are silent: copying numbers, writing `=`. A few stand out, and they are the ones
# where something has to be *worked out*. This is the paper's observation, and the reason why about
# twenty tokens a question are enough.
#
# ## Eq. 3: keep the steps above β
#
# $$D_t > \beta$$

# %%
kept = contrast.informative(kl, settings.beta)
steps = kept.nonzero().squeeze(-1)
print(f"{len(steps)} of {len(kl)} steps, at {steps.tolist()}")

# %% [markdown]
# ## Eq. 4: which tokens does the expert itself find plausible?
#
# $$\mathcal{A}_{mask}(s_t) = \{a : \pi_E(a \mid s_t) \ge \alpha \max_b \pi_E(b \mid s_t)\}$$
#
# The contrast below is a ratio, and a ratio of two tiny probabilities can be anything. The mask
# lets only the expert's own candidates take part.

# %%
mask = contrast.plausible(expert, settings.alpha)
print("(steps, vocabulary):", tuple(mask.shape))
print("tokens in the mask at the kept steps:", mask[kept].sum(-1).tolist())

# %% [markdown]
# At most kept steps the expert is sure, the mask holds one token, and there is nothing to choose:
# the label will be that token. Where the mask holds two, the expert hesitates. Take the first such
# step.

# %%
fork = int(steps[mask[kept].sum(-1) > 1][0])
print(f"step {fork}, after", repr("".join(answer.tokens[:fork])))
read_step(fork)

# %% [markdown]
# This is the fork: write the carry down, `(note 1)`, or go on without it. The expert is undecided
# and leans to the careless side. The amateur has never learned to hesitate here.
#
# ## Eq. 5-6: what does the expert know that the amateur does not?
#
# $$v'_C(a \mid s_t) = \log\frac{\pi_E(a \mid s_t)}{\pi_A(a \mid s_t)}, \qquad
# v_C = \mathrm{softmax}(v'_C)\ \text{on the mask},\ 0\ \text{off it}$$

# %%
score = contrast.contrast_score(expert, amateur)  # v'_C
label = contrast.soft_label(score, mask)  # v_C
print("(steps, vocabulary):", tuple(label.shape))
print("each row sums to 1:", bool(torch.allclose(label.sum(-1), torch.ones(len(label)))))

columns = read_step(fork)
ids = expert[fork].topk(len(columns)).indices
columns["in the mask"] = mask[fork, ids]
columns["score v'_C"] = score[fork, ids]
columns["label v_C"] = label[fork, ids]
columns.round(3)

# %% [markdown]
# Read the two rows in the mask. Both models think highly of going on without the carry, so the
# ratio finds nothing special in it. The carry mark is far more the expert's than the amateur's, so
# nearly all of the label goes there. **No one said that the carry is right.** The label says: do
# more of what sets you apart from someone who knows less. It is right exactly as far as that
# difference is skill.
#
# All kept steps of this answer, with the expert's own probability and the label's weight for the
# label's first token:

# %%
best = label[kept].argmax(-1)
pd.DataFrame(
    {
        "step": steps,
        "prefix ends in": [repr("".join(answer.tokens[:step][-6:])) for step in steps],
        "expert wrote": [repr(answer.tokens[step]) for step in steps],
        "label says": [repr(text) for text in pair.texts(best.tolist())],
        "π_E of it": expert[kept, best].exp(),
        "π_A of it": amateur[kept, best].exp(),
        "v_C of it": label[kept, best],
        "D (nats)": kl[kept],
    }
).round(3)

# %% [markdown]
# Most rows repeat the expert's own token with full weight: they are what it can do and the amateur
# cannot, adding digits. They hold the expert where it is while the forks move it. (They also show
# what the method cannot see: where the expert is sure *and wrong*, the label agrees with it.)
#
# ## Eq. 7-8: the loss
#
# $$\mathcal{L} = \mathrm{KL}(v_C \,\|\, \pi_E) \ \text{at the kept steps, with the gradient of}
# \ -\sum_a v_C(a)\log \pi_E(a)$$
#
# The student is the expert itself, under LoRA. Labels are constants.

# %%
targets = torch.arange(expert.shape[-1]).expand(len(steps), -1)  # dense here, sparse in a run
student_logits = expert_logits[kept].clone().requires_grad_()
student = contrast.log_probs(student_logits)
loss = contrast.distillation_loss(student, targets, label[kept])
print("(kept steps,) in nats:", [round(value, 3) for value in loss.tolist()])

(gradient,) = torch.autograd.grad(loss.sum(), student_logits, retain_graph=True)
cross_entropy = -(label[kept] * student).sum()
(cross_entropys,) = torch.autograd.grad(cross_entropy, student_logits)
print("same gradient as the cross-entropy:", bool(torch.allclose(gradient, cross_entropys)))

# %% [markdown]
# The loss is large at the fork and next to nothing where the label repeats what the expert
# believes. In logits the gradient is $\pi_E - v_C$: towards the carry mark, away from going on
# without it.

# %%
moved = gradient[steps.tolist().index(fork)]
pd.DataFrame(
    {
        "token": [repr(text) for text in pair.texts(ids.tolist())],
        "gradient π_E − v_C": moved[ids],
    }
).round(3)

# %% [markdown]
# ## The same, done by the package
#
# `lr_exp.sample` runs the sampler's three stages (rollout, scores, selection) over all questions,
# as `python -m lr_exp` does. For the question above it must say what the cells above said.

# %%
sample = lr_exp.sample(settings)
ours = sample.steps[sample.steps.answer == 0]
theirs = sample.labels[sample.labels.question_id == question.id].set_index("step")

assert sample.answers[0].token_ids == answer.token_ids
assert torch.allclose(torch.tensor(ours.kl_nats.to_numpy()), kl, atol=1e-4)
assert ours.kept.tolist() == kept.tolist()
for step in steps.tolist():
    token_ids, weights = theirs.loc[step, ["token_ids", "weights"]]
    assert token_ids == mask[step].nonzero().squeeze(-1).tolist()
    assert torch.allclose(torch.tensor(weights), label[step, token_ids], atol=1e-4)
theirs[["kl_nats", "tokens", "weights"]].round(3)

# %% [markdown]
# ## All questions: most steps say nothing
#
# Bins of 0.1 nat on a logarithmic axis, the last one open.

# %%
facts = sample.facts
counts = facts["histogram"]["counts"]
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(5, 2.2), dpi=110, layout="constrained")
    edges = [facts["histogram"]["bin_nats"] * i for i in range(len(counts) + 1)]
    axes.stairs([count / sum(counts) for count in counts], edges, fill=True, color=kept_colour)
    axes.axvline(settings.beta, color="black", linestyle="--", linewidth=0.8)
    axes.annotate("β: steps to the right are kept", (settings.beta + 0.05, 0.6), size=7)
    axes.set(yscale="log", xlabel="D (nats)", ylabel="share of steps", xlim=(0, 5))
    axes.yaxis.set_major_formatter("{x:g}")
    plt.show()

print(f"{facts['answers']} questions, {facts['steps']:,} steps, {facts['kept']:,} kept")
print(f"below 0.1 nat: {facts['share_below_0.1']:.0%} of the steps")
print(f"above 0.4 nats: {facts['share_above_0.4']:.0%}")

# %% [markdown]
# At how many kept steps can the label differ from what the expert would say anyway? Only where the
# mask holds more than one token:

# %%
choices = sample.labels.tokens.map(len)
wide = sample.labels[choices > 1]
first = wide.apply(lambda row: row.tokens[row.weights.index(max(row.weights))], axis=1)
print(f"{len(wide)} of {len(choices)} kept steps; the label's first token there:")
first.map(repr).value_counts().to_frame("kept steps").head(5)

# %% [markdown]
# ## Then train, and measure
#
# `run_experiment` is `python -m lr_exp experiment=demo` with the settings above. What was sampled
# lies in the store and is not sampled again.
# `micro_add` has new questions of the same kind; `micro_phrased` shares no name, noun or sentence
# with what was tuned on; in `micro_plain` nothing ever carries, so a model that carries everywhere
# would lose there.

# %%
summary = lr_exp.run_experiment(settings, "runs/tour")
tuning = summary.distill
print(f"{tuning.optimizer_steps} optimizer steps of {tuning.batch_size} kept steps each")
results = lr_exp.read_runs("runs/tour").set_index("benchmark")
shown = ["questions", "accuracy_before", "stderr_before", "accuracy_after", "stderr_after", "gain"]
results[shown].round(3)

# %%
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(4.5, 2.4), dpi=110, layout="constrained")
    for number, (when, colour) in enumerate({"before": other_colour, "after": kept_colour}.items()):
        axes.bar(
            [place + 0.38 * number for place in range(len(results))],
            100 * results[f"accuracy_{when}"],
            yerr=100 * results[f"stderr_{when}"],
            width=0.36,
            color=colour,
            label=when,
        )
    axes.set_xticks([place + 0.19 for place in range(len(results))], results.index)
    axes.set(ylabel="right answers (%), ± 1 standard error", ylim=(0, 105))
    figure.legend(loc="outside upper center", ncols=2)
    plt.show()

# %% [markdown]
# One question that was won, and one that was lost or stayed wrong, as the two models wrote them:

# %%
answers = lr_exp.read_answers("runs/tour").query("benchmark == 'micro_add'")
outputs = answers.pivot(index="question_id", columns="who")
before, after = outputs.correct.expert.astype(bool), outputs.correct.tuned.astype(bool)
won, not_won = outputs[~before & after], outputs[~after]
for what, rows in {"won": won, "not won": not_won}.items():
    one = rows.iloc[0]
    print(f"{what} ({len(rows)} questions): {one.question.expert}\n")
    print(f"reference: {one.reference.expert}\n")
    print(f"before:\n{one.output.expert}\n\nafter:\n{one.output.tuned}\n\n")

# %% [markdown]
# ## Why it worked, and when it would not
#
# - The skill was there. Tuning brought out what the expert already had as its second choice; it
#   taught nothing new, and no answer was ever checked.
# - The amateur lacked *that* skill. It is weaker in other ways, too (it adds badly), but wherever
#   the expert had a choice to make, the difference between the two was that skill. An amateur that
#   is as good as the expert, or better, points nowhere or the wrong way:
#   [your_own_pair](your_own_pair.ipynb) shows both.
# - Where the expert is confident and wrong, the label repeats it.
#
# The run's folder also has `report.html`, one file with these tables, the training curves and a
# reader in which every token of sampled answers is shaded by its divergence.
# [analysis](analysis.ipynb) goes on with tables over several runs, and `PAPER.md` leads from each
# equation to its function and test.
