"""The frames of the trajectory reader and of the paired answers, which the page's script fills."""

from collections.abc import Sequence

from lr_exp.report.names import benchmark_label
from lr_exp.report.page.answers import OUTCOMES, BeforeAfter
from lr_exp.report.page.markup import Child, Html, embedded_json, join, tag
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table
from lr_exp.report.page.trajectories import Reading
from lr_exp.report.tables.table import Column, Table

SHADES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # nats: lower edges of the shades
CONFIDENT = 0.9  # minimum top-1 probability of a confident expert

_ROUNDING_NATS = 1e-4  # of divergences in the file

_NUMBERING = (
    "A step is one generated token. Steps are numbered from 1 on this page and from 0 in the run's "
    "files and in error messages."
)
_FILTERS = (
    ("all", "All"),
    ("kept", "Kept"),
    ("differ", "Top-1 differs"),
    ("wrong", "Wrong answers"),
)


def reader_part(reading: Reading) -> Part:
    """The section that shows sampled answers token by token."""
    scored = reading.is_scored
    data = {**reading.data, "shades": SHADES, "confident": CONFIDENT}
    data |= {"scored": scored, "amateur": reading.has_amateur}
    content = join(
        tag("p", _about(reading), class_="lede"),
        [tag("p", note, class_="note") for note in (_shown(reading), _NUMBERING, *reading.notes)],
        tag("noscript", tag("p", "The trajectory reader needs JavaScript.", class_="note")),
        tag(
            "div",
            tag("div", _filters(_usable_filters(reading)), _pager("answer"), class_="bar"),
            _legend(reading.data["beta"], scored),
            tag(
                "div",
                tag(
                    "div",
                    tag("p", class_="question", dir="auto", data_is="question"),
                    tag("p", class_="verdict", data_is="verdict"),
                    # Hidden from screen readers, which read the same from the tokens below.
                    tag("div", class_="strip", data_is="strip", aria_hidden="true"),
                    tag(
                        "div",
                        class_="tokens",
                        data_is="tokens",
                        role="listbox",
                        aria_label="Tokens of the answer",
                        aria_orientation="horizontal",
                        dir="auto",
                    ),
                    tag("p", class_="note", data_is="counts"),
                    class_="answer",
                ),
                tag(
                    "aside",
                    tag(
                        "button",
                        "✕",
                        type="button",
                        class_="close",
                        data_is="close",
                        aria_label="Close the panel",
                    ),
                    tag("div", data_is="panel"),
                    tag("p", class_="unseen", aria_live="polite", data_is="spoken"),
                    class_="panel",
                    aria_label="Selected token",
                ),
                class_="columns",
                data_is="columns",
            ),
            tag("p", class_="empty", data_is="empty", role="status", hidden=True),
            _keys(),
            class_="reader",
            id="the-reader",
        ),
    )
    return Part("reader", "Trajectory reader", content, (embedded_json("reader-data", data),))


def _usable_filters(reading: Reading) -> list[tuple[str, str]]:
    """The filters whose data the answers have."""
    unusable = set() if reading.has_amateur else {"differ"}
    if all(answer["correct"] is None for answer in reading.answers):
        unusable.add("wrong")
    return [(key, label) for key, label in _FILTERS if key not in unusable]


def _shown(reading: Reading) -> str:
    count = len(reading.answers)
    return f"{count:,} {'answers are' if count != 1 else 'answer is'} shown: {reading.chosen}."


def _about(reading: Reading) -> str:
    """The meaning of shades and marks, with the threshold β if the kept steps match it."""
    steps = [
        (kl, kept)
        for answer in reading.answers
        for kl, kept in zip(answer["kl"], answer["kept"], strict=True)
    ]
    if not reading.is_scored:
        return "No step was compared with an amateur. Kept steps are underlined."
    shaded = (
        "Each token is shaded by the divergence D = KL(expert ‖ amateur) of the models' next-token "
        "distributions at that step."
    )
    beta = reading.data["beta"]
    if beta is not None and all(_matches_beta(kl or 0.0, bool(kept), beta) for kl, kept in steps):
        return f"{shaded} Steps with D > β = {beta:g} nats are kept and underlined."
    return f"{shaded} Kept steps are underlined."


def _matches_beta(kl: float, kept: bool, beta: float) -> bool:
    """Whether a step is kept exactly if D > beta, up to the file's rounding."""
    return kept == (kl > beta) or abs(kl - beta) < _ROUNDING_NATS


def _filters(entries: Sequence[tuple[str, str]]) -> Html:
    buttons = [
        tag(
            "button",
            tag("span", label),
            tag("span", class_="count", data_count=key),
            type="button",
            data_filter=key,
            aria_pressed="true" if number == 0 else "false",
        )
        for number, (key, label) in enumerate(entries)
    ]
    return tag("div", buttons, class_="filters", role="group", aria_label="Filter")


def _pager(item: str) -> Html:
    return tag(
        "div",
        tag("button", "←", type="button", data_go="-1", aria_label=f"Previous {item}"),
        tag("output", data_is="position"),
        tag("button", "→", type="button", data_go="1", aria_label=f"Next {item}"),
        class_="pager",
    )


def _legend(beta: float | None, scored: bool) -> Html:
    """The shades with their lower edges in nats, if steps were scored, and the marks."""
    shades = [
        tag(
            "span",
            tag("span", class_=f"swatch s{level}"),
            tag("span", f"{(0, *SHADES)[level]:g}", class_="edge"),
            class_="shade",
        )
        for level in range(len(SHADES) + 1)
    ]
    threshold = "" if beta is None else f" (β = {beta:g})"
    scale = tag(
        "div",
        tag("span", "D in nats, at least", class_="label"),
        tag("span", shades, class_="scale", role="img", aria_label=_scale_label()),
        class_="shades",
    )
    kept = tag("span", "token", class_="t s5 kept" if scored else "t kept")
    unscored = tag("span", tag("span", "token", class_="t unscored"), " not scored", class_="mark")
    return tag(
        "div",
        scale if scored else None,
        tag("span", kept, f" kept{threshold if scored else ''}", class_="mark"),
        unscored if scored else None,
        tag(
            "label",
            tag("input", type="checkbox", data_is="blind"),
            tag("span", "token", class_="t blind"),
            f" confident (top-1 p ≥ {CONFIDENT:g}) but not kept ",
            tag("span", class_="count", data_count="blind"),
            class_="mark blind-choice",
            hidden=True,
        ),
        class_="legend",
    )


def _scale_label() -> str:
    edges = ", ".join(f"{edge:g}" for edge in (0, *SHADES))
    return f"Shades from pale to strong start at {edges} nats"


def _keys() -> Html:
    def key(name: str) -> Html:
        return tag("kbd", name)

    parts: list[Child] = ["Next and previous answer: ", key("j"), " ", key("k"), " or ", key("→")]
    parts += [" ", key("←"), ". Tokens of an answer: ", key("Tab"), " to enter, ", key("→"), " "]
    parts += [key("←"), " to move, ", key("Esc"), " to leave."]
    return tag("p", parts, class_="keys")


def answers_part(pairs: BeforeAfter) -> Part:
    """The section that shows answers before and after tuning."""
    data = {
        "labels": {one.benchmark: benchmark_label(one.benchmark) for one in pairs.compared},
        "counts": {one.benchmark: one.counts for one in pairs.compared},
        "pairs": [pair for one in pairs.compared for pair in one.shown],
    }
    total = sum(one.total for one in pairs.compared)
    content = join(
        html_table(_counts(pairs), strong_last=len(pairs.compared) > 1),
        tag(
            "p",
            f"Counts cover all {total:,} questions. This page holds {pairs.shown:,} of them, "
            "evenly spaced within each outcome of each benchmark.",
            class_="note",
        ),
        [tag("p", reason, class_="note") for reason in pairs.missing],
        _pairs_frame(pairs) if pairs.shown else None,
    )
    data_parts = (embedded_json("answers-data", data),) if pairs.shown else ()
    return Part("answers", "Answers before and after", content, data_parts)


def _counts(pairs: BeforeAfter) -> Table:
    titles = ["benchmark", "questions", *OUTCOMES]
    rows = [
        [benchmark_label(one.benchmark), f"{one.total:,}"]
        + [f"{one.counts[outcome]:,}" for outcome in OUTCOMES]
        for one in pairs.compared
    ]
    if len(rows) > 1:
        sums = [sum(one.counts[outcome] for one in pairs.compared) for outcome in OUTCOMES]
        total = sum(one.total for one in pairs.compared)
        rows.append(["all", f"{total:,}", *(f"{number:,}" for number in sums)])
    columns = [Column(title, is_text=number == 0) for number, title in enumerate(titles)]
    note = "Won: only the tuned expert is right. Lost: only the untuned expert is right."
    return Table("answers", "Won and lost", columns, rows, [], [note])


def _pairs_frame(pairs: BeforeAfter) -> Html:
    choice = tag(
        "label",
        "Benchmark ",
        tag(
            "select",
            tag("option", "all", value=""),
            [
                tag("option", benchmark_label(one.benchmark), value=one.benchmark)
                for one in pairs.compared
            ],
            data_is="benchmark",
        ),
        class_="choice",
    )
    outcomes = [(one, one.capitalize()) for one in OUTCOMES]
    return tag(
        "div",
        tag("div", choice, _filters(outcomes), _pager("question"), class_="bar"),
        tag(
            "div",
            tag("p", class_="question", dir="auto", data_is="question"),
            tag("p", class_="verdict", data_is="verdict"),
            tag(
                "div",
                _side("before", "Before: untuned expert"),
                _side("after", "After: tuned expert"),
                class_="sides",
            ),
            tag(
                "p",
                tag("span", "Shaded", class_="differs"),
                ": from the first difference on. Grey: the beginning that both outputs share.",
                class_="note",
            ),
            data_is="columns",
        ),
        tag("p", class_="empty", data_is="empty", role="status", hidden=True),
        class_="pairs",
        id="the-pairs",
    )


def _side(key: str, name: str) -> Html:
    return tag(
        "div",
        tag("h4", name),
        tag("p", class_="outcome", data_is=f"{key}-outcome"),
        tag("div", class_="output", dir="auto", data_is=f"{key}-output"),
        class_="side",
    )
