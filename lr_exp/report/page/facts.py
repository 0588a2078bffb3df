"""Lists of a run's choices, headline numbers, settings and provenance."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lr_exp.report import names
from lr_exp.report.analyse.comparable import flat, machine
from lr_exp.report.page.markup import Child, Html, tag
from lr_exp.report.page.tables import scrolling
from lr_exp.report.read.runs import Run

Fact = tuple[str, str | None]

_MAX_ROWS = 400
_MAX_VALUE_CHARS = 600


def method_label(run: Run) -> str:
    """The method, or the source of the supervision, or `Evaluation only`."""
    if run.method:
        return names.method_label(run.method)
    trained = run.summary.sample or run.summary.distill
    return f"supervision from {run.data}" if trained else "Evaluation only"


def title(run: Run) -> str:
    """`LightReasoner: expert micro, amateur micro`."""
    models = [f"expert {run.expert}", *([f"amateur {run.amateur}"] if run.amateur else [])]
    return f"{method_label(run)}: {', '.join(models)}"


def choices(run: Run) -> list[Fact]:
    """The choices that produced the results."""
    return [
        ("method", method_label(run)),
        ("expert", run.expert),
        ("amateur", run.amateur),
        ("α", _number(run.alpha)),  # noqa: RUF001
        ("β", _with_unit(run.beta, "nats")),
        ("seed", _number(run.seed)),
        ("questions", run.data),
        ("decoding", None if run.decoder == "greedy" else run.decoder),
        ("sweep", run.sweep),
        ("machine", names.machine_name(machine(run).get("device_name", ""))),
        ("dtype", run.provenance.dtype),
        ("versions", _versions(run)),
    ]


def _versions(run: Run) -> str | None:
    values = run.summary.versions or {}
    words = [
        f"{name} {values[name]}" for name in ("lr_exp", "torch", "transformers") if name in values
    ]
    return ", ".join(words) or None


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _with_unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:g} {unit}"


def fact_list(facts: Iterable[Fact]) -> Html:
    """Names and values, without those that are unknown."""
    return tag(
        "dl",
        [
            tag("div", tag("dt", name), tag("dd", tag("bdi", _cut(value))))
            for name, value in facts
            if value
        ],
        class_="facts",
    )


def tiles(entries: Iterable[tuple[str, Child, str]]) -> Html | None:
    """Large numbers: label, value, detail."""
    shown = [
        tag(
            "div",
            tag("dt", label),
            tag("dd", value, class_="value"),
            tag("dd", detail, class_="detail") if detail else None,
        )
        for label, value, detail in entries
    ]
    return tag("dl", shown, class_="tiles") if shown else None


def settings_list(settings: Mapping[str, Any]) -> Html:
    """All settings by their dotted command-line keys, collapsed."""
    values = flat(settings)
    rows = [(key, _word(value)) for key, value in list(values.items())[:_MAX_ROWS]]
    left = len(values) - len(rows)
    return collapsed(
        f"All {len(values):,} settings",
        [
            _table("Settings", ("setting", "value"), rows),
            tag("p", f"{left:,} more are in summary.json.", class_="note") if left else None,
        ],
    )


def provenance_list(run: Run) -> Html:
    """Fingerprints of weights and questions, and package versions; collapsed."""
    values = flat(run.provenance.to_dict()) | {
        f"{name} version": value for name, value in (run.summary.versions or {}).items()
    }
    values |= {"sample.artifact": run.sample.artifact, "distill.artifact": run.distill.artifact}
    rows = [(key, _word(value)) for key, value in list(values.items())[:_MAX_ROWS] if value]
    table = _table("Provenance", ("item", "value"), rows)
    return collapsed("Provenance: models, data, packages", [table])


def collapsed(title: str, content: Sequence[Child]) -> Html:
    return tag("details", tag("summary", title), list(content))


def _table(name: str, head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> Html:
    return scrolling(
        tag(
            "table",
            tag("caption", name, class_="unseen"),
            tag(
                "thead", tag("tr", [tag("th", word, scope="col", class_="words") for word in head])
            ),
            tag(
                "tbody",
                [
                    tag("tr", tag("th", _cut(key), scope="row"), tag("td", _code(value)))
                    for key, value in rows
                ],
            ),
            class_="plain",
        ),
        name,
    )


def _code(value: str) -> Html:
    return tag("code", tag("bdi", _cut(value)))


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_word, value))}]"
    return "null" if value is None else str(value)


def _cut(value: str) -> str:
    return value if len(value) <= _MAX_VALUE_CHARS else f"{value[: _MAX_VALUE_CHARS - 1]}…"
