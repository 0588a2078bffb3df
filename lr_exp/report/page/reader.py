"""The trajectory reader and the answers side by side: their frames, which the script fills.

Knows what is shown; knows nothing of where it comes from.
"""

from collections.abc import Sequence

from lr_exp.report.names import benchmark_label
from lr_exp.report.page.answers import OUTCOMES, BeforeAfter
from lr_exp.report.page.markup import Child, Html, embedded_json, join, tag
from lr_exp.report.page.shell import Part
from lr_exp.report.page.tables import html_table
from lr_exp.report.page.trajectories import Reading
from lr_exp.report.tables.table import Column, Table

SHADES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # nats at which the next shade begins
CONFIDENT = 0.9  # of the expert's top probability

_ROUNDING = 1e-4  # nats

_STEPS = (
    "Steps are counted from 1 here; in the run's files, the step table and error messages, from 0."
)
_FILTERS = (("all", "All"), ("kept", "Kept"), ("differ", "Top-1 differ"), ("wrong", "Expert wrong"))


def reader_part(reading: Reading) -> Part:
    """The section with sampled answers token by token."""
    scored, asked = reading.is_scored, reading.has_amateur
    data = {**reading.data, "shades": SHADES, "confident": CONFIDENT}
    data |= {"scored": scored, "amateur": asked}
    content = join(
        tag("p", _about(reading), class_="lede"),
        [tag("p", note, class_="note") for note in (_shown(reading), _STEPS, *reading.notes)],
        tag("noscript", tag("p", "The reader needs this page's own script to run.", class_="note")),
        tag(
            "div",
            tag("div", _filters(_known(reading)), _pager("answer"), class_="bar"),
            _legend(reading.data["beta"], scored),
            tag(
                "div",
                tag(
                    "div",
                    tag("p", class_="question", dir="auto", data_is="question"),
                    tag("p", class_="verdict", data_is="verdict"),
                    # A picture of the tokens below it, which say the same to those who listen.
                    tag("div", class_="strip", data_is="strip", aria_hidden="true"),
                    tag(
                        "div",
                        class_="tokens",
                        data_is="tokens",
                        role="listbox",
                        aria_label="The answer's tokens",
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
                    aria_label="The token",
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


def _known(reading: Reading) -> list[tuple[str, str]]:
    """The filters that can find anything in answers of this kind."""
    unknown = set() if reading.has_amateur else {"differ"}
    if all(one["correct"] is None for one in reading.answers):
        unknown.add("wrong")
    return [(key, label) for key, label in _FILTERS if key not in unknown]


def _shown(reading: Reading) -> str:
    count = len(reading.answers)
    return f"{count:,} {'answers are' if count != 1 else 'answer is'} shown: {reading.chosen}."


def _about(reading: Reading) -> str:
    """What shades and marks say; the rule by which steps were kept, where the file shows it."""
    steps = [
        (kl, kept)
        for one in reading.answers
        for kl, kept in zip(one["kl"], one["kept"], strict=True)
    ]
    if not reading.is_scored:
        return "No amateur was asked, so no step has a divergence. Kept steps are underlined."
    shaded = (
        "Each token of an answer is shaded by the divergence D = KL(expert ‖ amateur) at its step."
    )
    beta = reading.data["beta"]
    if beta is not None and all(_is_by_beta(kl or 0.0, bool(kept), beta) for kl, kept in steps):
        return f"{shaded} Steps with D > β = {beta:g} nats are kept, and underlined."
    return f"{shaded} Kept steps are underlined."


def _is_by_beta(kl: float, kept: bool, beta: float) -> bool:
    """Whether a step was kept, or not, as its divergence says, which the file has rounded."""
    return kept == (kl > beta) or abs(kl - beta) < _ROUNDING


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


def _pager(what: str) -> Html:
    return tag(
        "div",
        tag("button", "←", type="button", data_go="-1", aria_label=f"Previous {what}"),
        tag("output", data_is="position"),
        tag("button", "→", type="button", data_go="1", aria_label=f"Next {what}"),
        class_="pager",
    )


def _legend(beta: float | None, scored: bool) -> Html:
    """The shades with the nats at their borders, where there are any, and the marks."""
    shades = [
        tag(
            "span",
            tag("span", class_=f"swatch s{level}"),
            tag("span", f"{(0, *SHADES)[level]:g}", class_="edge"),
            class_="shade",
        )
        for level in range(len(SHADES) + 1)
    ]
    bound = "" if beta is None else f" (β = {beta:g})"
    scale = tag(
        "div",
        tag("span", "D in nats, from", class_="label"),
        tag("span", shades, class_="scale", role="img", aria_label=_scale_told()),
        class_="shades",
    )
    kept = tag("span", "token", class_="t s5 kept" if scored else "t kept")
    unscored = tag("span", tag("span", "token", class_="t unscored"), " not scored", class_="mark")
    return tag(
        "div",
        scale if scored else None,
        tag("span", kept, f" kept{bound if scored else ''}", class_="mark"),
        unscored if scored else None,
        tag(
            "label",
            tag("input", type="checkbox", data_is="blind"),
            tag("span", "token", class_="t blind"),
            f" confident (p ≥ {CONFIDENT:g}), not kept ",
            tag("span", class_="count", data_count="blind"),
            class_="mark blind-choice",
            hidden=True,
        ),
        class_="legend",
    )


def _scale_told() -> str:
    edges = ", ".join(f"{edge:g}" for edge in (0, *SHADES))
    return f"Shades from pale to strong begin at {edges} nats"


def _keys() -> Html:
    def key(name: str) -> Html:
        return tag("kbd", name)

    parts: list[Child] = [key("j"), " ", key("k"), " or ", key("→"), " ", key("←")]
    parts += [" next and previous answer; within an answer ", key("Tab"), ", then ", key("→")]
    parts += [" ", key("←"), " go from token to token, ", key("Esc"), " leaves it"]
    return tag("p", parts, class_="keys")


def answers_part(found: BeforeAfter) -> Part:
    """The section with answers before and after."""
    label = {one.benchmark: benchmark_label(one.benchmark) for one in found.compared}
    data = {
        "labels": label,
        "counts": {one.benchmark: one.counts for one in found.compared},
        "pairs": [pair for one in found.compared for pair in one.shown],
    }
    total = sum(one.total for one in found.compared)
    content = join(
        html_table(_counts(found), strong_last=len(found.compared) > 1),
        tag(
            "p",
            f"Counts are over all {total:,} questions; {found.shown:,} of them are on this page, "
            "taken evenly from each outcome of each benchmark.",
            class_="note",
        ),
        [tag("p", reason, class_="note") for reason in found.missing],
        _pairs_frame(found) if found.shown else None,
    )
    data_parts = (embedded_json("answers-data", data),) if found.shown else ()
    return Part("answers", "Answers before and after", content, data_parts)


def _counts(found: BeforeAfter) -> Table:
    titles = ["benchmark", "questions", *OUTCOMES]
    rows = [
        [benchmark_label(one.benchmark), f"{one.total:,}"]
        + [f"{one.counts[outcome]:,}" for outcome in OUTCOMES]
        for one in found.compared
    ]
    if len(rows) > 1:
        sums = [sum(one.counts[outcome] for one in found.compared) for outcome in OUTCOMES]
        total = sum(one.total for one in found.compared)
        rows.append(["all", f"{total:,}", *(f"{number:,}" for number in sums)])
    columns = [Column(title, is_text=number == 0) for number, title in enumerate(titles)]
    note = "Won: only the tuned expert is right. Lost: only the expert is."
    return Table("answers", "Won and lost", columns, rows, [], [note])


def _pairs_frame(found: BeforeAfter) -> Html:
    choice = tag(
        "label",
        "Benchmark ",
        tag(
            "select",
            tag("option", "all", value=""),
            [
                tag("option", benchmark_label(one.benchmark), value=one.benchmark)
                for one in found.compared
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
                _side("before", "Before: the expert"),
                _side("after", "After: the tuned expert"),
                class_="sides",
            ),
            tag(
                "p",
                tag("span", "Shaded", class_="differs"),
                ": from where the two outputs differ on. Grey: the beginning that they share.",
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
