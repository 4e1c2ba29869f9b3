"""What other accountants say of the same events, for an auditor: none of it decides whether a round may be paid for.
The only import of dp_accounting.

- RDP (dp_accounting; Mironov 2017): an outer bound. Orders 2 to 64 and some above, each valid by itself.
- PRV (Opacus; Gopi, Lee & Wutschitz 2021, arXiv 2106.02848): another discretisation, by another group, bounds on both
  sides. Opacus' own files, run without torch: see ``_prv_accountant``.
- PLD (dp_accounting's own accountant) on a grid four times as wide: where PRV cannot be had.

The distributions are theirs; what is ours is how equal mechanisms are counted, done here once more and apart from
privacy/accountant.py, and what a DistributedStep's gap adds.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedft.errors import PrivacyError
from fedft.privacy.accountant import INTERVAL, LARGEST_NOISE, widened
from fedft.privacy.events import DataIndependentRelease, DistributedStep, PrivacyEvent, UnprotectedRelease

PRV_ERROR = 0.02
"""Half the width of PRV's bounds; more where its grid would exceed LARGEST_PRV_GRID points."""

LARGEST_PRV_GRID = 2**17
COARSE = 4 * INTERVAL
_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
_OPACUS = "_opacus_accountants"
_Counts = Counter[tuple[float, float]]
_Count = tuple[float, float, int]
"""Noise multiplier, sampling rate, steps."""


def rdp_epsilon(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Not below the true epsilon of ``events``, all of them protected. Raises PrivacyError as all three do."""
    return widened(_rdp(_sorted(events)), delta, _gap(events))


def coarse_epsilon(events: Sequence[PrivacyEvent], delta: float) -> float:
    """As ``epsilon_of``, by dp_accounting's own PLD accountant on a grid of COARSE, wider where losses are large."""
    interval = max(COARSE, rdp_epsilon(events, delta) / 2**18)
    if interval >= 0.1:
        raise PrivacyError("expected losses below 25,000, found larger ones: no figure on a wider grid")
    return widened(_pld(_sorted(events), interval), delta, _gap(events))


def prv_bounds(events: Sequence[PrivacyEvent], delta: float) -> tuple[float, float]:
    """Epsilons that the true one of ``events`` lies between, by Opacus' PRV accountant.

    Raises
    ------
    PrivacyError
        An event without protection; Opacus is not installed, or is another version; it gives no figure, as where
        losses are in the hundreds.
    """
    counts = _sorted(events)
    if not counts:
        return 0.0, 0.0
    delta_error = delta / 1000
    error = prv_error(events, delta)
    if not error < 1:
        raise PrivacyError(f"expected losses that PRV bounds within 1, found {error:.3g}: no figure by PRV")
    with _quiet():
        try:
            composed = _prv_composition(counts, error, delta_error)
            low, high = (
                widened(partial(_side, composed, error, delta_error, side), delta, _gap(events)) for side in (0, 2)
            )
        except (ArithmeticError, IndexError, RuntimeError, ValueError) as problem:
            raise PrivacyError(f"expected a figure of Opacus' PRV accountant, found {type(problem).__name__}") from None
    return max(0.0, low), high


def prv_error(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Half the width of ``prv_bounds``: PRV_ERROR, or what LARGEST_PRV_GRID points come to.

    Opacus spaces them by error / √(steps·ln(12/delta_error)/2), over twice an RDP epsilon and 3.
    """
    delta_error = delta / 1000
    width, steps = 2 * (rdp_epsilon(events, delta_error / 4) + 3), sum(_counts(events).values())
    return max(PRV_ERROR, width * math.sqrt(steps * math.log(12 / delta_error) / 2) / LARGEST_PRV_GRID)


@lru_cache(maxsize=8)
def _prv_composition(counts: tuple[_Count, ...], error: float, delta_error: float) -> Any:
    accountant = _prv_accountant()()
    accountant.history = list(counts)
    return accountant._get_dprv(eps_error=error, delta_error=delta_error)


def _side(composed: Any, error: float, delta_error: float, side: int, delta: float) -> float:
    return float(composed.compute_epsilon(delta, delta_error, error)[side])


def _counts(events: Sequence[PrivacyEvent]) -> _Counts:
    """Steps by noise multiplier and sampling rate; a Gaussian release is a step at rate 1."""
    found: _Counts = Counter()
    for event in events:
        if isinstance(event, UnprotectedRelease):
            raise PrivacyError("expected releases under a guarantee, found one without: its epsilon is infinite")
        if not isinstance(event, DataIndependentRelease):
            noise = min(event.noise_multiplier, LARGEST_NOISE)
            found[noise, getattr(event, "sampling_rate", 1.0)] += getattr(event, "steps", 1)
    return found


def _sorted(events: Sequence[PrivacyEvent]) -> tuple[_Count, ...]:
    return tuple((noise, rate, steps) for (noise, rate), steps in sorted(_counts(events).items()))


def _gap(events: Sequence[PrivacyEvent]) -> float:
    return math.fsum(event.steps * event.gap for event in events if isinstance(event, DistributedStep))


@lru_cache(maxsize=8)
def _rdp(counts: tuple[_Count, ...]) -> Callable[[float], float]:
    """Delta -> epsilon."""
    accountant = RdpAccountant(orders=_ORDERS).compose(_in_the_librarys_words(counts))
    return lambda delta: float(accountant.get_epsilon(delta))


def _pld(counts: Sequence[_Count], interval: float) -> Callable[[float], float]:
    accountant = PLDAccountant(value_discretization_interval=interval).compose(_in_the_librarys_words(counts))
    return lambda delta: float(accountant.get_epsilon(delta))


def _in_the_librarys_words(counts: Sequence[_Count]) -> dp_event.DpEvent:
    parts = []
    for noise, rate, steps in counts:
        gaussian = dp_event.GaussianDpEvent(noise)
        one = gaussian if rate == 1 else dp_event.PoissonSampledDpEvent(rate, gaussian)
        parts.append(dp_event.SelfComposedDpEvent(one, steps))
    return dp_event.ComposedDpEvent(parts)


@lru_cache(maxsize=1)
def _prv_accountant() -> Any:
    """Opacus' class PRVAccountant, of its own files, without torch.

    ``import opacus`` needs torch, and so does opacus.accountants, for a single type hint in its abstract base class.
    The files behind PRVAccountant are numpy and scipy. They are loaded under another name beside a base class that
    holds the history and nothing else. tests/contracts/test_opinions.py has the figures of both ways be the same.
    """
    found = importlib.util.find_spec("opacus")
    if found is None or found.origin is None:
        raise PrivacyError("expected Opacus for its PRV accountant, found none: pip install --no-deps opacus")
    package, base = ModuleType(_OPACUS), ModuleType(f"{_OPACUS}.accountant")
    package.__path__ = [str(Path(found.origin).parent / "accountants")]
    vars(base)["IAccountant"] = _History
    sys.modules |= {package.__name__: package, base.__name__: base}
    try:
        return importlib.import_module(f"{_OPACUS}.prv").PRVAccountant
    except (ImportError, AttributeError) as problem:
        raise PrivacyError(
            f"expected the PRV accountant of Opacus 1.6, found {type(problem).__name__}: install that version"
        ) from None


class _History:
    """What PRVAccountant needs of its base class."""

    def __init__(self) -> None:
        self.history: list[tuple[float, float, int]] = []


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus divides by zero on purpose at rate 1, and warns of orders that it leaves out."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
