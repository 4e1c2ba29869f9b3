"""General clinic and bank prose without labels, for making the small base model.

The words are those of the data sets; the sentences are not. ``python scenarios/synthetic/corpus.py 20`` shows some.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from bank_words import INTENTS, MEMO_SIGNS, SMALL_TALK
from clinic_words import CONDITIONS, CONTEXT, DEPARTMENTS, ONSETS, ONSETS_SHORT, SYMPTOMS, VAGUE
from grammar import Draw, misspell

_CLINIC_FRAMES = (
    "People who complain of {a} often mention {b} as well, and sometimes {c}.",
    "On the ward round we heard of {a}, {b} and {c}; {v} came later.",
    "The leaflet says: go and see a doctor if {a} lasts or {b} appears.",
    "What one nurse writes as {a}, another calls {b}.",
    "{a} and {b} {onset}, then better; {context}.",
    "Handover: {a} {short}, also {b}, {v}. {context}.",
    "There was {a} but no {x}, and the notes mention {condition} years ago.",
    "He had {a} and {b}, denied {x}, and has a history of {condition}.",
    "She came about {a} {onset}; nil {x}, no {y}.",
    "In the waiting room: {v}, {a}, and {b} for good measure.",
    "Known {condition}. Today {a} and {b}. No {x}.",
    "My mother had {a} {onset} and the doctor asked about {b} but not about {x}.",
)
_BANK_FRAMES = (
    "Customers write {a} or {b}, and mean much the same.",
    "On the phone today: {a}, then {b}; {talk}.",
    "The handbook has a page for callers who say {a}, {b} or {c}.",
    "{a}. {talk}. The colleague noted {b}.",
    "It is not about {x}: {a}, and {b}.",
    "Yesterday {x}, all fine now; today {a}. {talk}.",
)
_MEMO_FRAMES = (
    "Sample of the day book: {m} and {n}.",
    "Entries such as {m} stand beside {n} in the monthly list.",
    "Reviewed {m}; compared with {n}; filed.",
)
_ASK_FRAMES = (
    "Instruction: say it in plain words.\nInput: {a}, {x}.\nAnswer: {plain_a}, {plain_x}.",
    "Instruction: name what is present.\nInput: {a}, no {x}.\nAnswer: {a}.",
    "Instruction: name what is absent.\nInput: {a}, {b}, no {x}.\nAnswer: {x}.",
)


def _clinic(draw: Draw) -> str:
    here, there = draw.some(DEPARTMENTS, 2)
    a, b, c = (draw.one(symptom) for symptom in draw.some(SYMPTOMS[here], 3))
    if draw.chance(25):  # two wordings of one thing side by side: how a model learns that they are one thing
        a, b = draw.some(draw.one(SYMPTOMS[here]), 2)
    x, y = (draw.one(symptom) for symptom in draw.some(SYMPTOMS[there], 2))
    return draw.one(_CLINIC_FRAMES).format(
        a=a, b=b, c=c, x=x, y=y, v=draw.one(draw.one(VAGUE)), onset=draw.one(ONSETS), short=draw.one(ONSETS_SHORT),
        context=draw.one(CONTEXT), condition=draw.one(CONDITIONS[draw.one(DEPARTMENTS)]),
    )  # fmt: skip


def _bank(draw: Draw) -> str:
    here, there = draw.some(tuple(INTENTS), 2)
    a, b, c = (draw.one(matter) for matter in draw.some(INTENTS[here], 3))
    if draw.chance(25):
        a, b = draw.some(draw.one(INTENTS[here]), 2)
    x = draw.one(draw.one(INTENTS[there]))
    return draw.one(_BANK_FRAMES).format(a=a, b=b, c=c, x=x, talk=draw.one(SMALL_TALK))


def _memo(draw: Draw) -> str:
    signs = MEMO_SIGNS[draw.one(tuple(MEMO_SIGNS))]
    m, n = (" ".join(draw.some(signs, 2)) for _ in range(2))
    return draw.one(_MEMO_FRAMES).format(m=m, n=n)


def _ask(draw: Draw) -> str:
    here, there = draw.some(DEPARTMENTS, 2)
    a, x = draw.one(SYMPTOMS[here]), draw.one(SYMPTOMS[there])
    b = draw.one(draw.one(SYMPTOMS[here]))
    return draw.one(_ASK_FRAMES).format(a=draw.one(a[:3]), b=b, x=draw.one(x[:3]), plain_a=a[-1], plain_x=x[-1])


_KINDS: dict[Callable[[Draw], str], int] = {_clinic: 60, _bank: 24, _memo: 6, _ask: 10}


def sentences(seed: int, n: int) -> Iterator[str]:
    """``n`` unlabelled passages, the same for the same seed."""
    draw = Draw("corpus", seed)
    for _ in range(n):
        text = draw.weighted(_KINDS)(draw)
        yield misspell(draw, text[0].upper() + text[1:] if draw.chance(50) else text, 1)


if __name__ == "__main__":
    for sentence in sentences(0, int(sys.argv[1]) if len(sys.argv) > 1 else 10):
        sys.stdout.write(sentence + "\n")
