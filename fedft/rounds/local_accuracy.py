"""An institution's own release: how good a run's adapter is on its rows, charged to the ledger first.

Nobody asks for it over the wire. Its people decide, their policy has to say yes, and who gets the file is up to them.

Guarantee: charged before a row is evaluated, within the cap; what is returned is stored first; the same adapter asked
for again is the same bytes, and is charged once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedft.data.formats import EncodedDataSet
from fedft.errors import ConfigError, PolicyError
from fedft.evaluation.local_accuracy import noised_sum, unit_shares
from fedft.ledger.store import Ledger
from fedft.model.adapter import AdaptedModel
from fedft.privacy.accountant import require_budget_for, require_delta
from fedft.privacy.events import GaussianRelease
from fedft.randomness import SecureStream
from fedft.update.release import release_document

LABEL = "fedft/v1/local-accuracy"
PURPOSE = "local-accuracy"
ALLOWED_BY = "release.local_accuracy = true"


@dataclass(frozen=True)
class Budget:
    """Of the data set. unit: its column, "" for a row each."""

    dataset: str
    unit: str
    epsilon: float
    delta: float


def release_local_accuracy(
    model: AdaptedModel,
    data: EncodedDataSet,
    *,
    ledger: Ledger,
    run: str,
    round: int,
    adapter: str,
    institution: str,
    budget: Budget,
    noise_multiplier: float,
    allowed: bool,
    sign: Callable[[Mapping[str, Any]], bytes],
    precision: str = "auto",
) -> bytes:
    """The signed document: units, noise, and the noised sum of the units' shares of rows that are classified rightly.

    Parameters
    ----------
    round, adapter : of the adapter that ``model`` holds, and its digest
    noise_multiplier : standard deviation of the noise, where one unit changes the sum by at most 1
    allowed : what the policy says
    sign : fields -> the file's bytes

    Raises
    ------
    PolicyError
        The policy does not allow it. Nothing was charged.
    PrivacyBudgetExhausted
        The data set's cap would be exceeded. Nothing was charged.
    ConfigError
        A delta that protects nobody; a model that does not classify.
    LedgerError
        It was charged for another adapter or other noise before; its bytes are no longer kept.
    """
    if not allowed:
        raise PolicyError(f"expected {ALLOWED_BY} in the policy, found no such line: add it if this may leave")
    if model.task_kind != "classification":
        raise ConfigError("expected a run that classifies, found another task: its accuracy is not defined")
    require_delta(budget.delta, data.unit_count)
    stored = ledger.stored_release(run, round, PURPOSE)
    event = GaussianRelease(noise_multiplier)
    if ledger.find_intent(run, round, PURPOSE) is None:
        past = ledger.events(budget.dataset)
        require_budget_for(past, event, epsilon=budget.epsilon, delta=budget.delta, dataset=budget.dataset)
    intent = ledger.record_intent(
        run=run,
        round=round,
        purpose=PURPOSE,
        dataset=budget.dataset,
        plan_digest=adapter,
        event=event,
        evidence={
            "institution": institution,
            "fingerprint": data.fingerprint,
            "units": data.unit_count,
            "unit": budget.unit,
            "delta": budget.delta,
            "cap": budget.epsilon,
            "allowed_by": ALLOWED_BY,
        },
    )
    if stored is not None:
        return stored
    total = noised_sum(unit_shares(model, data, precision=precision), noise_multiplier, SecureStream())
    fields = {
        "run": run,
        "round": round,
        "adapter": adapter,
        "institution": institution,
        "units": data.unit_count,
        "noise_multiplier": noise_multiplier,
        "noised_sum": total,
        "accuracy": total / data.unit_count,
        "standard_error": noise_multiplier / data.unit_count,
    }
    return release_document(sign(fields), run=run, round=round, purpose=PURPOSE, intent=intent, recorder=ledger)
