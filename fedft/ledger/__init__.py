"""The privacy ledger: what was done with a data set, written before it is done and never changed afterwards."""

from fedft.ledger.entries import Entry, Intent
from fedft.ledger.store import Ledger

__all__ = ["Entry", "Intent", "Ledger"]
