"""Triage notes of four invented hospitals, labelled with the department they should go to.

The label is the department of what the patient has now. Most notes also name things of other departments that the
patient does not have, had once, or only fears: no single word gives the label away, its context does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clinic_words import (
    CONDITIONS,
    CONTEXT,
    DEPARTMENTS,
    LAY,
    LETTER,
    ONSETS,
    ONSETS_SHORT,
    SHORT,
    SYMPTOMS,
    TEXTBOOK,
    VAGUE,
)
from grammar import Draw, Row, misspell


@dataclass(frozen=True)
class Site:
    """One hospital: how many patients, in whose words, and which departments they need (percent each, by name)."""

    patients: int
    manners: Mapping[int, int]
    mix: Mapping[str, int]
    misspelt: int


def _mix(*common: str) -> dict[str, int]:
    """Departments named first are common here: 30, 22, 16, 10 to one another, the others 6 each."""
    weights = dict.fromkeys(DEPARTMENTS, 6)
    return weights | dict(zip(common, (30, 22, 16, 10), strict=True))


SITES = {
    "university": Site(1000, {TEXTBOOK: 70, LETTER: 20, SHORT: 10},
                       _mix("neurology", "cardiology", "ophthalmology", "urology"), 1),
    "county": Site(800, {LETTER: 70, TEXTBOOK: 15, LAY: 15},
                   _mix("gastroenterology", "orthopaedics", "dermatology", "cardiology"), 2),
    "emergency": Site(700, {SHORT: 75, LETTER: 15, LAY: 10},
                      _mix("cardiology", "orthopaedics", "pulmonology", "neurology"), 5),
    "village": Site(550, {LAY: 75, LETTER: 15, SHORT: 10},
                    _mix("dermatology", "urology", "pulmonology", "gastroenterology"), 4),
}  # fmt: skip

_OPENINGS = {
    TEXTBOOK: ("A patient of {age} years presents with", "Presentation at age {age}:", "Findings at {age} years:"),
    LETTER: ("Thank you for seeing this {age} year old with", "Dear colleague, I refer a {age} year old with",
             "Seen today, aged {age}:"),
    SHORT: ("{age}M", "{age}F", "pt {age}"),
    LAY: ("hello,", "i am {age},", "good morning,"),
}  # fmt: skip
_ABSENT = {
    TEXTBOOK: ("absence of {x}", "{x} was excluded", "no evidence of {x}"),
    LETTER: ("denies {x}", "no {x}", "without {x}"),
    SHORT: ("nil {x}", "no {x}", "denies {x}"),
    LAY: ("no {x}", "it is not {x}", "never {x}"),
}
_PAST = {
    TEXTBOOK: ("{x} years ago, resolved", "previous {x}, treated"),
    LETTER: ("had {x} last year, now settled", "{x} in the past"),
    SHORT: ("prev {x}, resolved", "PMH {x}"),
    LAY: ("had {x} last year, all fine now", "{x} before but that is over"),
}
_OTHERS = {
    TEXTBOOK: ("a parent suffered from {x}", "family history of {x}"),
    LETTER: ("the mother has {x}", "afraid of getting {x}"),
    SHORT: ("FHx {x}", "brother has {x}"),
    LAY: ("my mother has {x}", "my neighbour had {x}"),
}
_KNOWN = {TEXTBOOK: "known {c}", LETTER: "a history of {c}", SHORT: "PMH {c}", LAY: "i have {c}"}


def note(draw: Draw, department: str, manner: int) -> str:
    """A note for ``department``: one or two complaints of its own, and up to two misleading mentions."""
    wording = [symptom[manner] for symptom in draw.some(SYMPTOMS[department], 2 if draw.chance(60) else 1)]
    if draw.chance(25):
        wording.insert(draw.below(2), draw.one(VAGUE)[manner])
    present = (" and " if manner != SHORT else ", ").join(wording)
    onset = draw.one(ONSETS_SHORT if manner == SHORT else ONSETS)
    complaint = f"{draw.one(_OPENINGS[manner]).format(age=20 + draw.below(70))} {present} {onset}"
    remarks = [_misleading(draw, department, manner) for _ in range(draw.weighted({0: 15, 1: 50, 2: 35}))]
    if draw.chance(20):
        remarks.append(draw.one(CONTEXT))
    if draw.chance(20):
        remarks.append(_KNOWN[manner].format(c=draw.one(CONDITIONS[draw.one(DEPARTMENTS)])))
    parts = [complaint, *draw.some(remarks, len(remarks))]
    if draw.chance(35):
        parts = [*parts[1:2], complaint, *parts[2:]]
    return (", " if manner in (SHORT, LAY) else ". ").join(parts)


def _misleading(draw: Draw, department: str, manner: int) -> str:
    other = draw.one([name for name in DEPARTMENTS if name != department])
    frames = draw.weighted({0: 50, 1: 25, 2: 25})
    return draw.one((_ABSENT, _PAST, _OTHERS)[frames][manner]).format(x=draw.one(SYMPTOMS[other])[manner])


def training_rows(seed: int) -> Iterator[Row]:
    """Every patient's notes: one to three, most of them for one department."""
    for name, site in SITES.items():
        for number in range(site.patients):
            draw = Draw("hospital", seed, name, number)
            main = draw.weighted(site.mix)
            for _ in range(1 + min(draw.below(3), draw.below(3))):
                department = main if draw.chance(70) else draw.weighted(site.mix)
                text = misspell(draw, note(draw, department, draw.weighted(site.manners)), site.misspelt)
                yield {"text": text, "label": department, "patient": f"{name[0]}{number:04d}", "hospital": name}


def evaluation_rows(seed: int, count: int) -> Iterator[Row]:
    """Public rows of no patient: departments and manners in equal shares."""
    draw = Draw("hospital-evaluation", seed)
    manners = (TEXTBOOK, LETTER, SHORT, LAY)
    for number in range(count):
        department = DEPARTMENTS[number % len(DEPARTMENTS)]
        manner = manners[number // len(DEPARTMENTS) % len(manners)]
        yield {"text": misspell(draw, note(draw, department, manner), 2), "label": department}


def reference_rows(seed: int, count: int) -> Iterator[Row]:
    """Public teaching cases in the textbook's words: what the federation knows before it meets a patient."""
    draw = Draw("hospital-reference", seed)
    for number in range(count):
        department = DEPARTMENTS[number % len(DEPARTMENTS)]
        yield {"text": note(draw, department, TEXTBOOK), "label": department}
