"""Epsilon of each ledger as it grew, against its cap."""

from __future__ import annotations

from fedft.report.facts import DatasetSpending
from fedft.report.form import Document
from fedft.report.page import as_epsilon, as_number, paragraph
from fedft.report.svg import Level, Series, line_plot

_PANELS = 12


def budget(document: Document) -> str:
    """A staircase for each data set, by entry of its ledger; those nearest to their cap where there are many."""
    spent = [
        (ledger["institution"], dataset)
        for ledger in document["parts"]["ledgers"]["given"]
        for dataset in ledger["datasets"]
        if any(point["epsilon"] is not None for point in dataset["spend"])
    ]
    if not spent:
        return ""
    shown = sorted(spent, key=lambda one: -_share(one[1]))[:_PANELS]
    top = max(max(_last(dataset), dataset["cap"] or 0.0) for _, dataset in shown)
    panels = [_panel(*one, top) for one in spent if one in shown]
    left_out = len(spent) - len(shown)
    note = f"The {_PANELS} data sets nearest to their cap; {left_out} others are in the table above."
    return f'<div class="grid4">{"".join(panels)}</div>' + (paragraph(note, "note") if left_out else "")


def _panel(institution: str, dataset: DatasetSpending, top: float) -> str:
    points = tuple(
        (float(number), point["epsilon"])
        for number, point in enumerate(dataset["spend"], start=1)
        if point["epsilon"] is not None
    )
    cap = dataset["cap"]
    title = f"{institution}: {as_epsilon(_last(dataset))}" + (f" of {as_epsilon(cap)}" if cap is not None else "")
    return line_plot(
        [Series(institution, points, 0, is_step=True)],
        title=title,
        format_y=as_number,
        x_label="charge" if len(points) < 24 else "share of charges, in 24ths",
        from_zero=True,
        y_top=top,
        levels=[] if cap is None else [Level(cap, "cap")],
        size=(230, 170),
        label_lines=False,
    )


def _last(dataset: DatasetSpending) -> float:
    return max(point["epsilon"] or 0.0 for point in dataset["spend"])


def _share(dataset: DatasetSpending) -> float:
    return _last(dataset) / dataset["cap"] if dataset["cap"] else 0.0
