"""The page around a report: style for screen, phone and paper, and the few pieces of HTML that sections are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

_SPACE, _THIN_SPACE = "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is loaded and nothing runs, should a hostile name ever get past the escaping."""

_LIGHT = (
    "--paper:#fff;--ink:#1a1d21;--soft:#5a626b;--rule:#d5d9de;--shade:#f4f6f8;--good:#00693f;--bad:#b3160c;"
    "--bad-shade:#fdecea;--s0:#0067a3;--s1:#b84a00;--s2:#007a5a;--s3:#a23b7c;--s4:#806000;--s5:#4d4d4d;"
)
_DARK = (
    "--paper:#14171a;--ink:#e8eaed;--soft:#a4acb5;--rule:#3a4047;--shade:#1e2226;--good:#5fd39a;--bad:#ff8a80;"
    "--bad-shade:#3a1a18;--s0:#5ab6ee;--s1:#ff9a57;--s2:#42cfa0;--s3:#eb9dcb;--s4:#e8c25a;--s5:#bdbdbd;"
)
_SERIES = "".join(
    f".s{i} .line{{stroke:var(--s{i})}}.s{i} .dot,.fill.s{i},text.name.s{i}{{fill:var(--s{i})}}"
    f".key.s{i}{{background:var(--s{i})}}"
    for i in range(6)
)
_STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:62rem;padding:1.5rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:break-word}}
header{{border-bottom:2px solid var(--ink);padding-bottom:.8rem;margin-bottom:1.2rem}}
h1{{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}}
h2{{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--rule);break-after:avoid}}
h3{{font-size:1.05rem;margin:1.6rem 0 .4rem;break-after:avoid}}
h4{{font-size:.95rem;margin:1rem 0 .3rem;break-after:avoid}} .sign td,.sign th{{height:2.6rem;min-width:9rem}}
p{{margin:.5rem 0;max-width:46rem}} ul{{max-width:46rem;padding-left:1.2rem}} li{{margin:.35rem 0}}
a{{color:var(--s0)}}
.meta,.note,.none{{color:var(--soft);font-size:.9rem}} .lead{{font-size:1.12rem;line-height:1.5;max-width:54rem}}
.alarm{{border:2px solid var(--bad);background:var(--bad-shade);color:var(--bad);padding:.7rem 1rem;margin:1rem 0;
font-weight:600;max-width:none;break-inside:avoid}}
.good{{color:var(--good);font-weight:600}} .bad{{color:var(--bad);font-weight:600}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:1px;margin:1.2rem 0;padding:0;
background:var(--rule);border:1px solid var(--rule)}}
.tiles div{{background:var(--paper);padding:.6rem .8rem}}
.tiles dt{{color:var(--soft);font-size:.82rem}}
.tiles dd{{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums}}
.scroll{{overflow-x:auto;margin:.6rem 0}}
table{{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;min-width:min(100%,24rem)}}
th,td{{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--rule);vertical-align:top}}
thead th{{color:var(--soft);font-weight:600;vertical-align:bottom;border-bottom-color:var(--soft)}}
th.n,td.n{{text-align:right}} td.n{{white-space:nowrap}}
tbody th{{font-weight:600;white-space:nowrap}} .who tbody th,td code,td .t{{white-space:nowrap}}
tr{{break-inside:avoid}}
code,pre{{font-family:ui-monospace,Consolas,"DejaVu Sans Mono",monospace}}
code{{font-size:.85em;overflow-wrap:anywhere}}
pre{{background:var(--shade);padding:.8rem 1rem;font-size:.8rem;line-height:1.45;white-space:pre-wrap;
overflow-wrap:anywhere;columns:24rem;column-gap:2rem;margin:.6rem 0}}
pre span{{display:block;break-inside:avoid;padding-bottom:.8em}}
.grid2{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem 1.5rem}}
.grid4{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(46%,13rem),1fr));gap:.8rem}}
figure{{margin:.4rem 0;max-width:34rem;break-inside:avoid}}
figcaption{{font-size:.9rem;font-weight:600;margin-bottom:.2rem}}
.legend{{font-size:.82rem;color:var(--soft);margin:.2rem 0}}
.key{{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 .6em}}
table.who{{min-width:0}} .who td,.who thead th{{width:1.75rem;text-align:center;padding:.15rem 0}}
.who thead th:first-child{{text-align:left;padding-right:1rem}}
.who tbody th{{padding:.15rem 1rem .15rem 0;font-weight:400}}
.who .yes{{color:var(--s0)}} .who .no{{color:var(--paper);background:var(--s1);font-weight:700}}
.who .gone{{color:var(--soft);background:var(--shade)}}
svg{{display:block;width:100%;height:auto;font-size:11px}}
svg text{{fill:var(--soft);font-variant-numeric:tabular-nums}} svg text.strong{{fill:var(--ink)}}
svg text.name{{font-weight:600}}
.grid{{stroke:var(--rule);stroke-width:1}} .axis{{stroke:var(--soft);stroke-width:1}}
.level{{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:6 3}} .mark{{stroke:var(--soft);stroke-dasharray:2 3}}
.band0{{fill:var(--shade)}} .band1{{fill:none}}
.line{{fill:none;stroke-width:2;stroke-linejoin:round}} .grey .line{{stroke:var(--soft);opacity:.5;stroke-width:1.2}}
{_SERIES}
@media (max-width:36rem){{body{{padding:1rem .9rem 3rem}} h1{{font-size:1.4rem}} .lead{{font-size:1.05rem}}
.tiles{{grid-template-columns:1fr 1fr}}}}
@media print{{:root{{color-scheme:light;{_LIGHT}}} @page{{size:A4;margin:16mm 15mm}}
body{{max-width:none;padding:0;font-size:10pt;line-height:1.4}} h2{{margin-top:1.4rem}} .scroll{{overflow:visible}}
table{{font-size:8.5pt}} a{{color:inherit}} .key,.fill,.who td,.alarm,.band0{{print-color-adjust:exact}}
.grid2{{grid-template-columns:1fr 1fr}} .grid4{{grid-template-columns:repeat(4,1fr)}}
.tiles{{grid-template-columns:repeat(6,auto);break-inside:avoid}} .tiles dd{{font-size:1.1rem}}
.lead{{font-size:11.5pt}} h2+p{{break-after:avoid}} pre{{columns:2}}}}
"""


def page(title: str, body: str) -> str:
    """A whole document. ``body`` is HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, number: int | None = None) -> str:
    """``parts`` are HTML; a section without any is left out. number: of a part that others link to."""
    content = "".join(parts)
    anchor, before = ("", "") if number is None else (f' id="part-{number}"', f"{number}. ")
    return f"<section{anchor}>\n<h2>{before}{escape(title)}</h2>\n{content}\n</section>\n" if content else ""


def subsection(title: str, *parts: str) -> str:
    """Within a section; one without ``parts`` is left out."""
    content = "".join(parts)
    return f"<h3>{escape(title)}</h3>\n{content}\n" if content else ""


def figure(document: Mapping[str, Any], pointer: str, form: str = "number") -> str:
    """A value of the document, with its JSON Pointer (RFC 6901) beside it: a page can be compared with its JSON.

    form: which of FORMS writes it.
    """
    value: Any = document
    for step in pointer.split("/")[1:]:
        value = value[int(step) if isinstance(value, list) else step.replace("~1", "/").replace("~0", "~")]
    return f'<span data-at="{escape(pointer)}" data-as="{form}">{escape(FORMS[form](value))}</span>'


def figures(document: Mapping[str, Any], pointer: str, count: int, form: str = "number", between: str = ", ") -> str:
    """The ``count`` values of a list; a dash for none."""
    return between.join(figure(document, f"{pointer}/{i}", form) for i in range(count)) or cell(None)


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph of class ``kind``."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def marked(text: str, kind: str) -> str:
    """Plain text in a span of class ``kind``."""
    return f"<span{_class(kind)}>{escape(text)}</span>"


def bullets(items: Sequence[str]) -> str:
    """A list; items are plain text."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def tiles(pairs: Sequence[tuple[str, str]]) -> str:
    """Key figures side by side: name and value, plain text."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="tiles">{cells}</dl>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()) -> str:
    """A table whose cells are HTML (see ``cell``), the first of a row its heading; ``numeric`` columns stand right."""
    if not rows:
        return ""
    titles = "".join(f'<th scope="col"{_right(i, numeric)}>{escape(name)}</th>' for i, name in enumerate(head))
    lines = []
    for row in rows:
        rest = "".join(f"<td{_right(i, numeric)}>{value}</td>" for i, value in enumerate(row[1:], start=1))
        lines.append(f'<tr><th scope="row"{_right(0, numeric)}>{row[0]}</th>{rest}</tr>')
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def cell(value: object) -> str:
    """A value as escaped text: numbers short, truth in words, nothing as a dash."""
    return escape(as_text(value))


def as_text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", _THIN_SPACE) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return as_number(value)
    return str(value)


def as_number(value: float, digits: int = 4) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    if abs(value) >= 10_000 and value == round(value):
        return as_text(int(value))
    return f"{value:.{digits}g}"


def as_percent(value: float) -> str:
    return f"{100 * value:.1f}{_SPACE}%" if math.isfinite(value) else as_number(value)


def as_epsilon(value: float) -> str:
    """Rounded up at the third decimal: a guarantee is never stated better than it is."""
    if not math.isfinite(value):
        return "infinite"
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:.3f}".rstrip("0").rstrip(".")


def as_bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g}{_SPACE}{unit}" if value < 1000 else f"{value:.0f}{_SPACE}{unit}"


def as_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    return words.replace(" ", _SPACE)


def capitalized(text: str) -> str:
    """``str.capitalize`` would lower the rest."""
    return text[:1].upper() + text[1:]


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


def _right(column: int, numeric: Sequence[int]) -> str:
    return ' class="n"' if column in numeric else ""


def _or_dash(form: Callable[[float], str]) -> Callable[[Any], str]:
    """What is no number, as a folder may have it where one should be, is shown as it is."""
    return lambda value: form(float(value)) if type(value) in (int, float) else as_text(value)


FORMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "number": as_text,
    "epsilon": _or_dash(as_epsilon),
    "percent": _or_dash(as_percent),
    "bytes": _or_dash(as_bytes),
}
"""How a figure is written, by name; None is a dash."""
