"""Part 2: what was promised to whom, in a sentence, and what that means for an attacker."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedft.audit.accounts import TOLERANCE, Account
from fedft.audit.folder import Body, Run, dataset_of, number, pick
from fedft.audit.spending import LOCAL_ACCURACY, events_of, is_unprotected
from fedft.privacy.accountant import delta_curve, epsilon_curve
from fedft.privacy.events import PrivacyEvent
from fedft.privacy.tradeoff import largest_tpr
from fedft.report import masking
from fedft.report.facts import Guarantee, Guarantees
from fedft.report.form import Document
from fedft.report.page import as_epsilon, as_percent, as_text, cell, figure, figures, marked, paragraph, section, table
from fedft.report.sources import Sources
from fedft.report.svg import Series, line_plot
from fedft.report.words import cap_of, institutions, unit_of

TITLE = "The guarantee"
RATES = (0.001, 0.01)
"""False positive rates at which an attacker's success is bounded."""

_EXPONENTS = tuple(range(3, 9))
_FINE = tuple(k / 20 for k in range(241))
"""Epsilons at which the curve bounds an attacker: 0 to 12."""

_OFF = (
    'Nothing is protected in this run: privacy.mode is "off". Whoever sees an update, or the trained model, may learn '
    "what is in the rows it was trained on. No epsilon can be stated."
)
_UNKNOWN = "Nothing in this folder says that privacy was on. Take this run as unprotected."
_CUT = "The last line of metrics.jsonl is incomplete and left out: its writing was interrupted."
_MEANING = """
For any one {unit}, and any set S of things an institution may send over all rounds: P[S with the {unit}] ≤ exp(ε) · P[S
without] + δ, and the same the other way round. Epsilon covers everything in the institution's ledger for this data set,
over all runs, composed by privacy loss distributions, and is rounded up.
"""
_ATTACKER = """
Someone who knows all other rows, and guesses from everything that left whether one {unit}'s data was used: if at most
the stated share of {unit}s whose data was not used is accused, at most this share of those whose data was used is
found. The bound is computed from the whole curve, and holds whatever the attacker knows besides.
"""
_NOT_GIVEN = "Its ledger was not given: what it has spent is not known here, and fedft ledger show says it there."


def facts(sources: Sources) -> Guarantees:
    run = sources.run
    accounts = [_of_account(sources, account) for account in sources.recomputed.accounts]
    seen = {found["institution"] for found in accounts}
    missing = [_without_ledger(run, name) for name in sources.institutions if name not in seen]
    return {
        "relation": f"add or remove one {unit_of(run)}",
        "trust_model": masking.trust(run),
        "released": _released(run, _purposes(sources)),
        "institutions": [*accounts, *missing],
    }


def _released(run: Run, purposes: frozenset[str]) -> str:
    if run.shares_noise:
        what = "the clipped sum of gradients of each round with a share of the noise, masked"
    else:
        what = f"the update of each round, {'without noise' if run.is_unprotected else 'noised'}"
    own = (
        "noised accuracies that institutions released themselves; nothing else of"
        if LOCAL_ACCURACY in purposes
        else "nothing of"
    )
    return f"{what}; {own} metrics, losses or counts. The coordinator's figures are of its own public rows."


def _purposes(sources: Sources) -> frozenset[str]:
    ledgers = sources.recomputed.ledgers.values()
    return frozenset(release.purpose for ledger in ledgers for release in ledger.releases)


def _of_account(sources: Sources, account: Account) -> Guarantee:
    run, spending = sources.run, sources.recomputed.ledgers[account.institution]
    events = events_of(spending.on(account.dataset))
    own = any(charge.run == run.config.get("run") for charge in spending.on(account.dataset))
    infinite = account.epsilon is not None and math.isinf(account.epsilon)
    unit = account.units[-1] if account.units and account.units[-1] else "record"
    curve, bounds = _curve(events, account.delta)
    found: Guarantee = {
        "institution": account.institution,
        "dataset": account.dataset,
        "of_this_run": own,
        "protected": account.epsilon is not None and not infinite,
        "epsilon": None if infinite else account.epsilon,
        "epsilon_infinite": infinite,
        "stated": number(institutions(run).get(account.institution, {}).get("epsilon")) if own else None,
        "asked": None,
        "cap": account.cap,
        "delta": account.delta,
        "unit": unit,
        "units": list(account.sizes),
        "fingerprints": list(account.fingerprints),
        "runs": [one.run for one in account.runs],
        "prv": None if account.prv is None else list(account.prv),
        "rdp": account.rdp,
        "without_masks": _finite(account.without_masks),
        "least_honest": account.least_honest,
        "curve": [{"delta": delta, "epsilon": _finite(epsilon)} for delta, epsilon in curve],
        "attack_bounds": [{"fpr": rate, "tpr": tpr} for rate, tpr in bounds],
        "sentence": "",
    }
    return {**found, "sentence": _sentence(found)}


def _curve(
    events: Sequence[PrivacyEvent], delta: float | None
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(delta, epsilon) pairs to be shown, and (false, true positive rate) bounds."""
    if delta is None or any(map(is_unprotected, events)):
        return [], []
    shown = sorted({delta, *(10.0**-k for k in _EXPONENTS)}, reverse=True)
    curve = list(zip(shown, epsilon_curve(events, shown), strict=True))
    pairs = [*zip(_FINE, delta_curve(events, _FINE), strict=True), *((epsilon, at) for at, epsilon in curve)]
    return curve, [(rate, largest_tpr(pairs, rate)) for rate in RATES]


def _without_ledger(run: Run, name: str) -> Guarantee:
    stated = institutions(run).get(name, {})
    found: Guarantee = {
        "institution": name,
        "dataset": dataset_of(run.config, name) if not run.is_elsewhere else "",
        "of_this_run": True,
        "protected": False,
        "epsilon": None,
        "epsilon_infinite": False,
        "asked": None
        if run.is_unprotected
        else number(stated.get("epsilon_asked", pick(run.config, "privacy.epsilon"))),
        "stated": number(stated.get("epsilon")),
        "cap": cap_of(run, name),
        "delta": number(stated.get("delta", pick(run.config, "privacy.delta"))),
        "unit": unit_of(run),
        "units": [],
        "fingerprints": [],
        "runs": [],
        "prv": None,
        "rdp": None,
        "without_masks": number(stated.get("local_epsilon")),
        "least_honest": None,
        "curve": [],
        "attack_bounds": [],
        "sentence": "",
    }
    return {**found, "sentence": _sentence(found)}


def _sentence(found: Guarantee) -> str:
    name, unit, asked = found["institution"], found["unit"], found["asked"]
    if found["epsilon_infinite"]:
        return f"{name}: none. Data set {found['dataset']} had an update leave without noise."
    if found["epsilon"] is None:
        if asked is None:
            return f"{name}: none can be stated. {_NOT_GIVEN}"
        budget = f"ε = {as_epsilon(asked)}, δ = {as_text(found['delta'])}"
        return f"{name}: asked to stay within {budget} in this run. {_NOT_GIVEN}"
    text = (
        f"{name}: everything that left data set {found['dataset']} in {len(found['runs'])} "
        f"run{'s' if len(found['runs']) != 1 else ''} is, together, ({as_epsilon(found['epsilon'])}, "
        f"{as_text(found['delta'])})-differentially private for each {unit}, under adding or removing one"
    )
    if found["least_honest"] is not None:
        alone = found["without_masks"]
        text += (
            f", as long as every sum that was formed has {found['least_honest']} honest institutions or more in it; "
            f"without secure aggregation it would be ε = {'infinite' if alone is None else as_epsilon(alone)}"
        )
    return f"{text}."


def alarms(document: Document, run: Run) -> str:
    """What must not be overlooked, in red, before anything else."""
    words = []
    verification = document["verification"]
    if verification is not None and verification["mismatch"] is not None:
        mismatch = verification["mismatch"]
        words.append(
            f"The run's records do not hold: {mismatch['where']}: expected {mismatch['expected']}, found "
            f"{mismatch['found']}."
        )
    if run.is_unprotected:
        words.append(_OFF if pick(run.config, "privacy.mode") == "off" else _UNKNOWN)
    for name, body in institutions(run).items():
        words += _over(name, body)
    words += [
        f"{finding['where']}: {finding['text']}."
        for finding in document["recomputation"]["findings"]
        if finding["kind"] == "claim"
    ]
    return "".join(paragraph(word, "alarm") for word in [*words, *([_CUT] if run.cut_line else [])])


def _over(name: str, body: Body) -> list[str]:
    spent, cap = body.get("epsilon"), number(body.get("cap"))
    if isinstance(spent, float) and math.isinf(spent):
        return [f"{name} made an unprotected release: its epsilon is infinite."]
    if isinstance(spent, int | float) and cap is not None and spent > cap + TOLERANCE:
        return [f"{name} has spent more than its cap: {as_epsilon(float(spent))} of {as_epsilon(cap)}."]
    return []


_HEAD = (
    "Institution",
    "Data set",
    "ε, all runs",
    "Cap",
    "δ",
    "Units",
    "PRV says",
    "RDP, at most",
    "The run states",
    "Runs",
)


def view(document: Document, run: Run) -> str:
    """A sentence for each institution, the table behind it, the curves, and what they mean."""
    found = document["parts"]["guarantees"]
    if run.is_unprotected:
        return section(
            TITLE,
            paragraph("None. Updates left as they were trained, without noise.", "bad"),
            *(paragraph(one["sentence"]) for one in found["institutions"]),
            paragraph(found["trust_model"]),
            number=2,
        )
    unit, column = unit_of(run), pick(run.config, "data.unit")
    what = f'all rows with the same value in column "{column}"' if column else "one row of the data set"
    head = (*_HEAD, "ε if masks fail") if run.shares_noise else _HEAD
    rows = [_row(document, i, run) for i in range(len(found["institutions"]))]
    return section(
        TITLE,
        *(paragraph(one["sentence"]) for one in found["institutions"]),
        table(head, rows, numeric=range(2, len(head))),
        paragraph(f"Privacy unit: the {unit}, that is {what}. Neighbouring relation: {found['relation']}."),
        paragraph(" ".join(_MEANING.format(unit=unit).split())),
        paragraph(found["trust_model"]),
        paragraph(f"Released: {found['released']}"),
        _attackers(document, unit),
        _curves(document),
        number=2,
    )


def _row(document: Document, i: int, run: Run) -> list[str]:
    one, at = document["parts"]["guarantees"]["institutions"][i], f"/parts/guarantees/institutions/{i}"
    prv = figures(document, f"{at}/prv", len(one["prv"] or ()), "epsilon", " to ")
    epsilon = marked("infinite", "bad") if one["epsilon_infinite"] else figure(document, f"{at}/epsilon", "epsilon")
    return [
        cell(one["institution"]),
        cell(one["dataset"] or None),
        epsilon,
        figure(document, f"{at}/cap", "epsilon"),
        figure(document, f"{at}/delta"),
        cell(", ".join(map(as_text, one["units"])) or None),
        prv,
        figure(document, f"{at}/rdp", "epsilon"),
        figure(document, f"{at}/stated", "epsilon"),
        cell(len(one["runs"]) or None),
        *([figure(document, f"{at}/without_masks", "epsilon")] if run.shares_noise else []),
    ]


def _attackers(document: Document, unit: str) -> str:
    head = ("Institution", "Data set", *(f"found, of {as_percent(rate)} wrongly accused" for rate in RATES))
    rows = [
        [
            cell(one["institution"]),
            cell(one["dataset"]),
            *(
                figure(document, f"/parts/guarantees/institutions/{i}/attack_bounds/{j}/tpr", "percent")
                for j in range(len(RATES))
            ),
        ]
        for i, one in enumerate(document["parts"]["guarantees"]["institutions"])
        if one["attack_bounds"]
    ]
    if not rows:
        return ""
    return (
        "<h3>What it means for an attacker</h3>"
        + table(head, rows, numeric=range(2, len(head)))
        + paragraph(" ".join(_ATTACKER.format(unit=unit).split()), "note")
    )


def _curves(document: Document) -> str:
    """Epsilon against delta, in powers of ten."""
    lines = [
        Series(
            one["institution"] if one["dataset"] == one["institution"] else f"{one['institution']}: {one['dataset']}",
            tuple((math.log10(p["delta"]), p["epsilon"]) for p in reversed(one["curve"]) if p["epsilon"] is not None),
            i % 6,
        )
        for i, one in enumerate(document["parts"]["guarantees"]["institutions"])
        if one["curve"]
    ]
    if not lines:
        return ""
    plot = line_plot(lines, title="ε at other δ", x_label="log10 of δ", format_y=as_text, from_zero=True)
    return f'<div class="grid2">{plot}</div>'


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
