"""Tables of one command each: a plan, metrics, a doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fedft.display.summary import table
from fedft.display.words import epsilon_text, figure, quality_of, size
from fedft.doctor import Finding

_EPSILON = "epsilon: of the whole run, for adding or removing one unit; the cap is the data set's, over all runs"
_AFTER = (
    "after N: epsilon spent when N rounds are done, by this run alone, for adding or removing one unit; what was spent "
    "before counts against the institution's own cap too"
)
_SHARED = (
    "noise is added in shares: epsilon holds towards a coordinator that sees masked sums; alone: what would hold if "
    "secure aggregation failed"
)
_ASSUMED = (
    "the sizes are assumed (others with --units 500,1000,5000): what an institution has, and so its noise, it alone "
    "knows, and its policy may refuse"
)
_STATUS = {"ok": "green", "note": "yellow", "missing": "red"}


def plan_table(plan: Mapping[str, Any]) -> RenderableType:
    """``plan``: as FederationPlan.as_json gives it."""
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
    notes = [] if private else [Text('privacy.mode = "off": no guarantee to anyone', style="yellow")]
    if plan["asked"] is not None:
        return Group(*lines, *_asked(plan, private=private), Text(), Text(_ASSUMED, style="dim"), *notes)
    institutions: Mapping[str, Mapping[str, Any]] = plan["institutions"]
    made = _private_plans(institutions) if private else _plain_plans(institutions)
    notes += [Text(_EPSILON, style="dim")] if private else []
    notes += [Text(_SHARED, style="dim")] if plan["mode"] == "distributed" else []
    return Group(*lines, made, Text(), *notes)


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
    alone = any(found.get("local_epsilon") is not None for found in institutions.values())
    heads = ["institution", "units", "batch", "sampling", "steps", "noise", "epsilon", "cap", "delta"]
    heads += ["alone"] if alone else []
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
        privacy += [epsilon_text(found.get("local_epsilon"))] if alone else []
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


def _asked(plan: Mapping[str, Any], *, private: bool) -> Iterator[RenderableType]:
    """What an institution elsewhere is asked to keep, and what it would mean for the assumed sizes."""
    asked, unit = plan["asked"], plan["unit"] or "row"
    words = f"asked of each institution: {asked['steps']} steps, each with {asked['batch_size']:,} units on average"
    if private:
        words += f"; epsilon {asked['epsilon']:g} at delta {asked['delta']:g}, clip norm {asked['clip_norm']:g}"
    yield Text(f"{words} (a unit is a {unit}{'; so many in each task' if plan['tasks'] else ''})")
    yield Text()
    fitting = [found for found in plan["assumed"] if found["plan"] is not None]
    if fitting:
        yield _sizes(fitting, private=private)
    for found in plan["assumed"]:
        if found["plan"] is None:
            refused = f"{found['units']:,} units: refused ({found['refusal']}): {found['because']}"
            yield Text(refused, style="yellow")
    if fitting and private:
        yield Text()
        yield Text(_AFTER, style="dim")


def _sizes(fitting: Sequence[Mapping[str, Any]], *, private: bool) -> RenderableType:
    rounds = [f"after {done}" for done, _ in fitting[0]["epsilon_after"]]
    heads = ("units", "sampling", *(("noise", *rounds) if private else ()))
    made = table(*heads, right=tuple(range(len(heads))))
    for found in fitting:
        noise = [figure(found["plan"]["noise_multiplier"])] if private else []
        spent = [epsilon_text(epsilon) for _, epsilon in found["epsilon_after"]]
        made.add_row(f"{found['units']:,}", figure(found["plan"]["sampling_rate"]), *noise, *spent)
    return made
