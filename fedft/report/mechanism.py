"""Part 3: by which mechanism, with which parameters, on whose arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import TypeVar

from fedft import __version__
from fedft.audit.folder import Body, number, pick
from fedft.audit.spending import UPDATE, Charge
from fedft.privacy.accountant import INTERVAL
from fedft.report.facts import Mechanism, Mechanisms
from fedft.report.form import Document
from fedft.report.page import cell, figure, figures, paragraph, section, table
from fedft.report.sources import Sources
from fedft.report.words import institutions

TITLE = "The mechanism"
_Value = TypeVar("_Value")
_OFF = "None: privacy was off, and updates left as they were trained."


def facts(sources: Sources) -> Mechanisms:
    run = sources.run.config.get("run")
    found = [
        _mechanism(name, [charge for charge in spending.of_run(str(run)) if charge.purpose == UPDATE])
        for name, spending in sources.recomputed.ledgers.items()
    ]
    found += [
        _stated(name, body)
        for name, body in institutions(sources.run).items()
        if name not in sources.recomputed.ledgers
    ]
    mode = str(pick(sources.run.config, "privacy.mode") or sources.run.summary.get("privacy_mode") or "")
    return {
        "mode": mode,
        "common": _common(mode) if mode in ("dp-sgd", "distributed") else {},
        "institutions": [one for one in found if one["steps"] or one["noise_multipliers"]],
    }


def _mechanism(name: str, charges: list[Charge]) -> Mechanism:
    def of(attribute: str) -> list[float]:
        values = (number(getattr(charge.event, attribute, None)) for charge in charges)
        return _distinct(value for value in values if value is not None)

    return {
        "institution": name,
        "from_ledger": True,
        "noise_multipliers": of("noise_multiplier"),
        "clip_norms": _distinct(value for charge in charges if (value := charge.value("clip_norm")) is not None),
        "sampling_rates": of("sampling_rate"),
        "batch_size": next((value for charge in charges if (value := charge.value("batch_size")) is not None), None),
        "steps": sum(getattr(charge.event, "steps", 0) * len(charge.entries) for charge in charges),
    }


def _stated(name: str, body: Body) -> Mechanism:
    def of(key: str) -> list[float]:
        value = number(body.get(key))
        return [] if value is None else [value]

    return {
        "institution": name,
        "from_ledger": False,
        "noise_multipliers": of("noise_multiplier"),
        "clip_norms": of("clip_norm"),
        "sampling_rates": of("sampling_rate"),
        "batch_size": None,
        "steps": int(number(body.get("steps")) or 0),
    }


def _common(mode: str) -> dict[str, str]:
    local = mode == "dp-sgd"
    return {
        "Algorithm": (
            "DP-SGD (Abadi et al. 2016, algorithm 1) at each institution"
            if local
            else "One step of DP-SGD a round over all institutions, its discrete Gaussian noise added in shares under "
            "secure aggregation (Kairouz, Liu & Steinke 2021)"
        ),
        "Sampler": "Poisson: each unit by a coin of its own, all its rows in one physical batch",
        "Clipping": "each unit's summed gradient to the clip norm, all trained parameters together, in float32",
        "Loss": "one per row, summed over rows; never a mean over a batch",
        "Empty draws": "a step with noise alone, and counted",
        "Noise": (
            "Gaussian, in float64, added to the sum before it is rounded to float32"
            if local
            else "discrete Gaussian on integers, exact, before the mask"
        ),
        "Random source of noise, coin flips and keys": "AES-256-CTR keyed by the system, never the run's seed",
        "Order": "noise before encoding, mask and signature; EWC's gradient after the noise",
        "Accountant": f"privacy loss distributions, fedft {__version__}, connect-the-dots, interval {INTERVAL:g}",
        "Second accountants": f"PRV, Opacus {version('opacus')}; RDP, dp-accounting {version('dp-accounting')}, as the "
        "outer bound",
    }


def view(document: Document) -> str:
    mechanisms = document["parts"]["mechanisms"]
    if not mechanisms["common"]:
        return section(TITLE, paragraph(_OFF, "bad"), number=3)
    at = "/parts/mechanisms/institutions"
    head = ("Institution", "Noise multiplier", "Clip norm", "Sampling rate", "Expected batch (units)", "Steps", "As")
    rows = [
        [
            cell(one["institution"]),
            figures(document, f"{at}/{i}/noise_multipliers", len(one["noise_multipliers"])),
            figures(document, f"{at}/{i}/clip_norms", len(one["clip_norms"])),
            figures(document, f"{at}/{i}/sampling_rates", len(one["sampling_rates"])),
            figure(document, f"{at}/{i}/batch_size"),
            figure(document, f"{at}/{i}/steps"),
            cell("charged" if one["from_ledger"] else "the run states"),
        ]
        for i, one in enumerate(mechanisms["institutions"])
    ]
    ledgers = "Of this run. Charged: as the institution's ledger has it, written before training."
    none = "No ledger with charges of this run was given: see the configuration for what was asked."
    return section(
        TITLE,
        paragraph(ledgers if rows else none, "note"),
        table(head, rows, numeric=range(1, len(head) - 1)),
        table(("What", "How"), [[cell(name), cell(text)] for name, text in mechanisms["common"].items()]),
        number=3,
    )


def _distinct(values: Iterable[_Value]) -> list[_Value]:
    return list(dict.fromkeys(values))
