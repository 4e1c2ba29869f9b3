"""Tables of one command each: a plan, metrics, a doctor's findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fedft.display.summary import table
from fedft.display.words import epsilon_text, figure, quality_of, size
from fedft.doctor import Finding

_STATUS = {"ok": "green", "note": "yellow", "missing": "red"}


def plan_table(plan: Mapping[str, Any]) -> RenderableType:
    """``plan``: as FederationPlan.as_json gives it."""
    institutions: Mapping[str, Mapping[str, Any]] = plan["institutions"]
    private = plan["mode"] != "off"
    up = size(plan["bytes_up_per_update"])
    down = size(plan["bytes_down_per_institution"])
    lines = [
        Text.assemble((plan["name"], "bold"), f": {plan['rounds']} rounds of {plan['steps_per_round']} local steps"),
        Text(
            f"{plan['parameters_trained']:,} parameters trained and sent ({', '.join(plan['roles'])}) "
            f"of {plan['parameters_adapter']:,} in the adapter, on a base of {plan['parameters_base']:,}; "
            f"aggregation {plan['aggregation']}"
        ),
        Text(f"each round at most {up} up and {down} down per institution"),
        Text(),
    ]
    made = _private_plans(institutions) if private else _plain_plans(institutions)
    words = (
        "epsilon: of the whole run, for adding or removing one unit; the cap is the data set's, over all runs"
        if private
        else 'privacy.mode = "off": no guarantee to anyone'
    )
    return Group(*lines, made, Text(), Text(words, style="dim" if private else "yellow"))


def metrics_table(metrics: Mapping[str, float], name: str, round: int) -> RenderableType:
    made = table("metric", "value", right=(1,))
    for metric, value in quality_of(metrics).items():
        made.add_row(metric, figure(value))
    rows = f" on {metrics['rows']:.0f} rows" if "rows" in metrics else ""
    return Group(Text(f"{name}, adapter of round {round}{rows}", style="bold"), made)


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    made = table("", "found", "")
    for finding in findings:
        made.add_row(finding.subject, finding.detail, Text(finding.status, style=_STATUS[finding.status]))
    return made


def _private_plans(institutions: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    heads = ("institution", "units", "batch", "sampling", "steps", "noise", "epsilon", "cap", "delta")
    made = table(*heads, right=tuple(range(1, len(heads))))
    short: list[Text] = []
    for name, found in institutions.items():
        numbers = [
            f"{found['units']:,}",
            f"{found['batch_size']:,}",
            figure(found["sampling_rate"]),
            str(found["steps"]),
        ]
        privacy = [epsilon_text(found["planned_epsilon"]), f"{found['cap']:g}", f"{found['delta']:g}"]
        made.add_row(name, *numbers, figure(found["noise_multiplier"]), *privacy)
        rounds = found["affordable_rounds"]
        if found["planned_epsilon"] > found["cap"] and rounds is not None:
            short.append(Text(f"{name} can afford {rounds} rounds within its cap, then refuses", style="yellow"))
    return Group(made, *short)


def _plain_plans(institutions: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    heads = ("institution", "rows", "units", "batch", "sampling", "steps")
    made = table(*heads, right=tuple(range(1, len(heads))))
    for name, found in institutions.items():
        numbers = (f"{found[key]:,}" for key in ("rows", "units", "batch_size"))
        made.add_row(name, *numbers, figure(found["sampling_rate"]), str(found["steps"]))
    return made
