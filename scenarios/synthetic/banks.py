"""What four invented banks read: messages of customers with their intent, memos of transactions with the fraud type.

A message may also name what it is not about; a memo mixes signs of its own kind with signs of another. Both stand in
one file with a column ``task``, so that one model learns them together or one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bank_words import BUSINESS, CHAT, FORMAL, INTENTS, MEMO_SIGNS, PLAIN, SMALL_TALK
from grammar import Draw, Row, misspell


@dataclass(frozen=True)
class Bank:
    """One bank: how many customers, in whose words, and what they write about (weights by name)."""

    customers: int
    manners: Mapping[int, int]
    intents: Mapping[str, int]
    frauds: Mapping[str, int]


def _mix(names: Mapping[str, object], *common: str) -> dict[str, int]:
    return dict.fromkeys(names, 2) | dict(zip(common, (8, 6, 4), strict=False))


BANKS = {
    "savings": Bank(700, {FORMAL: 75, PLAIN: 25}, _mix(INTENTS, "fees", "personal_details", "failed_transfer"),
                    _mix(MEMO_SIGNS, "legitimate", "account_takeover")),
    "highstreet": Bank(650, {PLAIN: 75, FORMAL: 15, CHAT: 10}, _mix(INTENTS, "loan", "lost_card", "fees"),
                       _mix(MEMO_SIGNS, "legitimate", "card_testing")),
    "mobile": Bank(600, {CHAT: 80, PLAIN: 20}, _mix(INTENTS, "account_access", "declined_payment", "lost_card"),
                   _mix(MEMO_SIGNS, "money_mule", "legitimate")),
    "merchant": Bank(500, {BUSINESS: 80, FORMAL: 20},
                     _mix(INTENTS, "disputed_charge", "failed_transfer", "declined_payment"),
                     _mix(MEMO_SIGNS, "invoice_fraud", "legitimate")),
}  # fmt: skip

_ABOUT = {
    FORMAL: ("Dear sirs, {a}", "{a}", "With reference to my account: {a}"),
    PLAIN: ("Hello, {a}", "{a}", "A question: {a}"),
    CHAT: ("hi {a}", "{a}", "hey so {a}"),
    BUSINESS: ("Accounts here: {a}", "{a}", "For our company: {a}"),
}
_NOT_ABOUT = {
    FORMAL: ("this does not concern an earlier matter, {x}", "{x}, which has been resolved"),
    PLAIN: ("it is not about last time when I wrote {x}", "yesterday {x}, all fine now"),
    CHAT: ("not the thing from before ({x})", "last week {x} but thats sorted"),
    BUSINESS: ("the ticket on {x} can be closed", "not related to {x}"),
}


def message(draw: Draw, intent: str, manner: int) -> str:
    """A message with ``intent``, most with a mention of another one that is over."""
    matters = [matter[manner] for matter in draw.some(INTENTS[intent], 2 if draw.chance(40) else 1)]
    parts = [draw.one(_ABOUT[manner]).format(a=" and ".join(matters))]
    for _ in range(draw.weighted({0: 40, 1: 50, 2: 10})):
        other = draw.one([name for name in INTENTS if name != intent])
        aside = draw.one(_NOT_ABOUT[manner]).format(x=draw.one(INTENTS[other])[manner])
        parts.insert(draw.below(len(parts) + 1), aside)
    if draw.chance(50):
        parts.insert(draw.below(len(parts) + 1), draw.one(SMALL_TALK))
    return (", " if manner in (CHAT, PLAIN) else "; ").join(parts)


def memo(draw: Draw, kind: str) -> str:
    """Three signs of ``kind`` among one or two of another kind; most foreign signs in a fraud are innocent ones."""
    others = [name for name in MEMO_SIGNS if name != kind]
    foreign = "legitimate" if kind != "legitimate" and draw.chance(60) else draw.one(others)
    signs = [*draw.some(MEMO_SIGNS[kind], 3), *draw.some(MEMO_SIGNS[foreign], 1 + draw.below(2))]
    return f"eur {1 + draw.below(900)}.{draw.below(100):02d} " + " / ".join(draw.some(signs, len(signs)))


def training_rows(seed: int) -> Iterator[Row]:
    """Every customer's rows: one or two messages, and the memo of one transaction."""
    for name, bank in BANKS.items():
        for number in range(bank.customers):
            draw, customer = Draw("bank", seed, name, number), f"{name[:2]}{number:04d}"
            for _ in range(1 + draw.below(2)):
                intent, manner = draw.weighted(bank.intents), draw.weighted(bank.manners)
                yield _row(misspell(draw, message(draw, intent, manner), 2), intent, "messages", customer, name)
            kind = draw.weighted(bank.frauds)
            yield _row(memo(draw, kind), kind, "memos", customer, name)


def _row(text: str, label: str, task: str, customer: str, bank: str) -> Row:
    return {"text": text, "label": label, "task": task, "customer": customer, "bank": bank}


def public_rows(use: str, seed: int, messages: int, memos: int) -> Iterator[Row]:
    """Rows of no customer, intents, manners and kinds in equal shares, for ``use``."""
    draw, manners = Draw("bank", use, seed), (FORMAL, PLAIN, CHAT, BUSINESS)
    intents, kinds = tuple(INTENTS), tuple(MEMO_SIGNS)
    for number in range(messages):
        intent, manner = intents[number % len(intents)], manners[number // len(intents) % len(manners)]
        yield {"text": misspell(draw, message(draw, intent, manner), 2), "label": intent, "task": "messages"}
    for number in range(memos):
        kind = kinds[number % len(kinds)]
        yield {"text": memo(draw, kind), "label": kind, "task": "memos"}
