# %% [markdown]
# # LightReasoner on one question
#
# LightReasoner ([arXiv 2510.07962](https://arxiv.org/abs/2510.07962)) compares a strong model, the
# *expert*, with a weak one, the *amateur*, to find the steps of the expert's reasoning that are
# worth reinforcing. A *step* is one token position in the expert's answer. This notebook applies
# the method to a single question and shows every tensor. It then runs the method on all questions
# of the demo and measures accuracy before and after.
#
# Both models are tiny and ship with the package. They come from the **micro world**: addition
# problems, solved digit by digit. A *careful* solution adds each carry to the next column; a
# *careless* one drops it. The expert was trained on 40 % careful solutions, so its greedy answers
# are careless and the careful step is its second choice. The amateur was trained on 5 % careful
# solutions. The micro world shows the mechanism in a minute without a GPU; its numbers are not
# comparable with the paper's.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

import lr_exp
from lr_exp import contrast

lr_exp.progress.choose("none")  # no progress bars
kept_colour = lr_exp.style.method_look("lightreasoner").colour  # the colours of all figures
other_colour = lr_exp.style.method_look("baseline").colour

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
            "layers": language_model.model.config.num_hidden_layers,
            "hidden size": language_model.model.config.hidden_size,
            "parameters": f"{language_model.model.num_parameters():,}",
            "vocabulary size": language_model.vocabulary_size,
        }
        for role, language_model in {"expert": pair.expert, "amateur": pair.amateur}.items()
    }
)

# %% [markdown]
# ## The expert answers
#
# The expert answers by greedy decoding. The reference answer is printed for comparison only; the
# method does not use it.

# %%
question = lr_exp.read_questions(settings)[0]
(answer,) = pair.roll_out([question])
print(question.text, f"\n\n{answer.text}\n\nreference: {question.answer}")

# %% [markdown]
# The expert adds each column correctly but drops the carry: it adds the tens as if the units had
# not overflowed. A careful solution marks the carry with `(note 1)` right after the units, and adds
# it to the tens. The mark is a single token. At which step does the expert *decide* against it?
#
# ## Both models read the same text
#
# The amateur does not generate. Both models read the expert's answer and predict the next token at
# every step. One forward pass per model gives the logits of all steps.

# %%
expert_logits, amateur_logits = pair.logits(answer)
expert = contrast.log_probs(expert_logits)  # log π_E(a | s_t)
amateur = contrast.log_probs(amateur_logits)  # log π_A(a | s_t)
print("(steps, vocabulary):", tuple(expert.shape), tuple(amateur.shape))


def read_step(step: int, count: int = 4) -> pd.DataFrame:
    """Both models' probabilities of the expert's top tokens at a step."""
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
# The divergence $\mathrm{KL}(\pi_E \,\|\, \pi_A)$ in nats: one number per step, summed over the
# whole vocabulary. It is 0 where the two distributions are equal.

# %%
kl = contrast.kl_nats(expert, amateur)  # D_t
print("(steps,):", tuple(kl.shape))

with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(9, 2.4), dpi=110, layout="constrained")
    is_kept = (kl > settings.beta).tolist()
    axes.bar(range(len(kl)), kl, color=[kept_colour if kept else other_colour for kept in is_kept])
    axes.axhline(settings.beta, color=other_colour, linestyle="--", linewidth=0.8)
    axes.annotate(f"β = {settings.beta}", (len(kl) - 1, settings.beta + 0.06), ha="right", size=7)
    labels = [token.strip(" ").replace("\n", "↵") for token in answer.tokens]
    axes.set_xticks(range(len(kl)), labels, rotation=90, family="monospace", fontsize=7)
    axes.set_xlim(-1, len(kl))
    axes.set_ylabel("D (nats)")
    axes.set_xlabel("the expert's answer, token by token")
    plt.show()

# %% [markdown]
# The divergence is near 0 for most tokens, such as `=` signs. It is high for a few. Not all of them
# are computed: in this answer some of the largest values are at numbers that are *copied* from the
# question, which the amateur cannot do reliably. Below we see which of these steps teach anything.
#
# ## Eq. 3: keep the steps above β
#
# $$D_t > \beta$$

# %%
kept = contrast.informative(kl, settings.beta)
steps = kept.nonzero().squeeze(-1)
print(f"{len(steps)} of {len(kl)} steps, at {steps.tolist()}")

# %% [markdown]
# ## Eq. 4: which tokens are plausible to the expert?
#
# $$\mathcal{A}_{mask}(s_t) = \{a : \pi_E(a \mid s_t) \ge \alpha \max_b \pi_E(b \mid s_t)\}$$
#
# The contrast below is a ratio of probabilities, and the ratio of two tiny probabilities is
# unreliable. The mask keeps only tokens to which the expert gives enough probability.

# %%
mask = contrast.plausible(expert, settings.alpha)
print("(steps, vocabulary):", tuple(mask.shape))
print("tokens in the mask at the kept steps:", mask[kept].sum(-1).tolist())

# %% [markdown]
# At most kept steps the expert is certain: the mask has one token, and the label will be that
# token. Where the mask has two tokens, the expert is uncertain. Look at the first such step.

# %%
fork = int(steps[mask[kept].sum(-1) > 1][0])
print(f"step {fork}, after", repr("".join(answer.tokens[:fork])))
read_step(fork)

# %% [markdown]
# Here the expert either writes the carry, `(note 1)`, or drops it. It is uncertain, and dropping
# the carry is slightly more probable. The amateur almost always drops it.
#
# ## Eq. 5-6: what does the expert prefer more than the amateur does?
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
# Compare the two rows in the mask. Both models give a high probability to dropping the carry, so
# its ratio is low. The carry mark is much more probable under the expert than under the amateur, so
# it gets nearly all of the label's weight. **The correct answer was not used.** The label
# reinforces what distinguishes the expert from the amateur; it is correct as far as that difference
# is skill.
#
# All kept steps of this answer, with both models' probabilities and the label's weight for the
# label's top token:

# %%
best = label[kept].argmax(-1)
pd.DataFrame(
    {
        "step": steps,
        "prefix ends in": [repr("".join(answer.tokens[:step][-6:])) for step in steps],
        "expert wrote": [repr(answer.tokens[step]) for step in steps],
        "top label token": [repr(text) for text in pair.texts(best.tolist())],
        "π_E": expert[kept, best].exp(),
        "π_A": amateur[kept, best].exp(),
        "v_C": label[kept, best],
        "D (nats)": kl[kept],
    }
).round(3)

# %% [markdown]
# Most labels are the expert's own token with weight 1. At these steps the expert adds digits, which
# the amateur does badly. They keep the expert as it is, while multi-token labels change it. (They
# also show a limit of the method: where the expert is certain *and wrong*, the label is wrong too.)
#
# ## Eq. 7-8: the loss
#
# $$\mathcal{L} = \mathrm{KL}(v_C \,\|\, \pi_E) \ \text{at the kept steps, with the gradient of}
# \ -\sum_a v_C(a)\log \pi_E(a)$$
#
# The student is the expert with a LoRA adapter. No gradient flows through the labels.

# %%
targets = torch.arange(expert.shape[-1]).expand(len(steps), -1)  # dense here, sparse in a run
student_logits = expert_logits[kept].clone().requires_grad_()
student = contrast.log_probs(student_logits)
loss = contrast.distillation_loss(student, targets, label[kept])
print("(kept steps,) in nats:", [round(value, 3) for value in loss.tolist()])

(gradient,) = torch.autograd.grad(loss.sum(), student_logits, retain_graph=True)
cross_entropy = -(label[kept] * student).sum()
(cross_entropy_gradient,) = torch.autograd.grad(cross_entropy, student_logits)
print("same gradient as the cross-entropy:", bool(torch.allclose(gradient, cross_entropy_gradient)))

# %% [markdown]
# The loss is large at the uncertain step and close to 0 where the label repeats the expert's own
# prediction. The gradient with respect to the logits is $\pi_E - v_C$: a descent step makes the
# carry mark more probable, and dropping the carry less.

# %%
fork_gradient = gradient[steps.tolist().index(fork)]
pd.DataFrame(
    {
        "token": [repr(text) for text in pair.texts(ids.tolist())],
        "gradient π_E − v_C": fork_gradient[ids],
    }
).round(3)

# %% [markdown]
# ## The same with the package
#
# `lr_exp.sample` runs the sampler's three stages (rollout, scoring, selection) on all questions, as
# `python -m lr_exp` does. For the question above, its results must equal those of the cells above.

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
# ## All questions: a few steps hold the divergence and the loss
#
# The curves sort the steps by their value, lowest first. If all steps were equal, they would follow
# the dotted line. The loss is that of the labels before training; it is 0 at steps that are not
# kept.

# %%
facts = sample.facts
with lr_exp.style.styled():
    figure, axes = plt.subplots(figsize=(5, 2.6), dpi=110, layout="constrained")
    axes.plot([0, 100], [0, 100], color=other_colour, linestyle=":")
    for name, label in (("histogram", "divergence D"), ("loss_histogram", "loss")):
        steps_below, nats_below = (
            torch.tensor([0.0, *facts[name][key]]).cumsum(0) for key in ("counts", "nats")
        )
        line = "-" if name == "histogram" else "--"
        x, y = 100 * steps_below / steps_below[-1], 100 * nats_below / nats_below[-1]
        axes.plot(x, y, color=kept_colour, linestyle=line, label=label)
    axes.set(xlabel="steps, lowest first (%)", ylabel="share of the total (%)")
    axes.legend()
    plt.show()

print(f"{facts['answers']} questions, {facts['steps']:,} steps, {facts['kept']:,} kept")
print(f"below 0.1 nat: {facts['share_below_0.1']:.0%} of the steps")
print(f"above 0.4 nats: {facts['share_above_0.4']:.0%}")
print(f"moving, the label prefers another token than the expert: {facts['moving_of_all']:.1%}")
print(f"share of the loss at the moving steps: {facts['moving_loss_share']:.0%}")

# %% [markdown]
# The label can differ from the expert's own prediction only where the mask has more than one token.
# At the other kept steps, copied numbers among them, it only confirms the expert, and the loss is
# near 0 from the start. How many kept steps have a choice?

# %%
choices = sample.labels.tokens.map(len)
wide = sample.labels[choices > 1]
top_tokens = wide.apply(lambda row: row.tokens[row.weights.index(max(row.weights))], axis=1)
print(f"{len(wide)} of {len(choices)} kept steps; the label's top token there:")
top_tokens.map(repr).value_counts().to_frame("kept steps").head(5)

# %% [markdown]
# ## Train and evaluate
#
# `run_experiment` does the same as `python -m lr_exp experiment=demo` with the settings above. It
# reuses the samples in the store. `micro_add` has new questions of the same kind. `micro_phrased`
# shares no name, noun or sentence with the training questions. The sums in `micro_plain` have no
# carries, so a model that always carries would fail there.

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
            [index + 0.38 * number for index in range(len(results))],
            100 * results[f"accuracy_{when}"],
            yerr=100 * results[f"stderr_{when}"],
            width=0.36,
            color=colour,
            label=when,
        )
    axes.set_xticks([index + 0.19 for index in range(len(results))], results.index)
    axes.set(ylabel="accuracy (%), ± 1 standard error", ylim=(0, 105))
    figure.legend(loc="outside upper center", ncols=2)
    plt.show()

# %% [markdown]
# Both models' outputs for one question that training fixed, and for one that is wrong after it:

# %%
answers = lr_exp.read_answers("runs/tour").query("benchmark == 'micro_add'")
outputs = answers.pivot(index="question_id", columns="who")
before, after = outputs.correct.expert.astype(bool), outputs.correct.tuned.astype(bool)
fixed, wrong = outputs[~before & after], outputs[~after]
for title, rows in {"fixed": fixed, "wrong after training": wrong}.items():
    row = rows.iloc[0]
    print(f"{title} ({len(rows)} questions): {row.question.expert}\n")
    print(f"reference: {row.reference.expert}\n")
    print(f"before:\n{row.output.expert}\n\nafter:\n{row.output.tuned}\n\n")

# %% [markdown]
# ## Why it worked, and when it does not
#
# - The expert already had the skill, as its second choice. Training made it the first choice. It
#   added no knowledge and used no reference answer.
# - The amateur lacked *that* skill. It is weaker in other ways too (it adds badly), but wherever
#   the expert was uncertain, the skill was what distinguished the two. An amateur as good as the
#   expert gives no signal, and a better one gives the opposite signal:
#   [your_own_pair](your_own_pair.ipynb) shows both.
# - Where the expert is certain and wrong, the label is wrong too.
#
# The run's folder also has `report.html`: these tables, the training curves, and sampled answers
# with every token shaded by its divergence. [analysis](analysis.ipynb) makes tables over several
# runs, and `PAPER.md` lists the function and the test of each equation.
