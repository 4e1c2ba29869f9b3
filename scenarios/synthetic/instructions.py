"""Instructions that invented hospitals give a small assistant about their notes, with the answers they expect.

The base model has read three of them in its corpus; the others are new to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from clinic_words import DEPARTMENTS, LAY, LETTER, SYMPTOMS, TEXTBOOK
from grammar import Draw, Row
from hospitals import SITES

_KINDS = {"plain": 20, "textbook": 40, "department": 40}
"""How often each is asked, in percent; only the first is in the corpus."""


def _asked(draw: Draw, kind: str, department: str) -> Row:
    first, second = draw.some(SYMPTOMS[department], 2)
    said = f"{first[draw.below(3)]}, {second[draw.below(3)]}"
    if kind == "plain":
        return {"instruction": "say it in plain words.", "input": f"{said}.", "output": f"{first[LAY]}, {second[LAY]}."}
    if kind == "textbook":
        lay = f"{first[draw.one((LAY, LETTER))]}, {second[draw.one((LAY, LETTER))]}."
        answer = f"{first[TEXTBOOK]}, {second[TEXTBOOK]}."
        return {"instruction": "write it as a textbook would.", "input": lay, "output": answer}
    return {"instruction": "name the department.", "input": f"{said}.", "output": f"{department}."}


def training_rows(seed: int, patients: int) -> Iterator[Row]:
    """``patients`` per hospital with two instructions each."""
    for name, site in SITES.items():
        for number in range(patients):
            draw = Draw("instructions", seed, name, number)
            for _ in range(2):
                row = _asked(draw, draw.weighted(_KINDS), draw.weighted(site.mix))
                yield {**row, "patient": f"{name[0]}{number:04d}", "hospital": name}


def evaluation_rows(seed: int, count: int) -> Iterator[Row]:
    draw = Draw("instructions-evaluation", seed)
    for number in range(count):
        yield _asked(draw, draw.weighted(_KINDS), DEPARTMENTS[number % len(DEPARTMENTS)])
