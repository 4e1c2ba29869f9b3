"""What fedft audit recompute found, on a terminal: what was spent, on whom, under which cap, and what does not hold."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from fedft.audit.accounts import Account
from fedft.audit.findings import BAD_INPUT, FOUND, Finding
from fedft.audit.recompute import Recomputed
from fedft.display.summary import table
from fedft.display.words import cap_text, epsilon_text, figure

_STYLES = {"claim": "red", "input": "red", "note": "yellow"}
_HEADS = {"claim": "does not hold", "input": "cannot be read", "note": "to be seen"}


def recomputed_view(found: Recomputed) -> RenderableType:
    title = f"{found.run or found.folder}: privacy recomputed from configuration and ledgers"
    lines: list[RenderableType] = [Text(title, style="bold"), Text()]
    lines += [_accounts(found), Text()] if found.accounts else []
    lines += [*_runs(found), Text()] if found.ledgers else []
    lines += [line for kind in ("claim", "input", "note") for line in _findings(found, kind)]
    return Group(*lines, _verdict(found))


def _accounts(found: Recomputed) -> RenderableType:
    heads = ("institution", "on whom", "epsilon", "by PRV", "by RDP", "delta", "cap")
    made = table(*heads, right=(2, 3, 4, 5, 6))
    for account in found.accounts:
        made.add_row(
            account.institution,
            _whom(account),
            "no delta" if account.epsilon is None else epsilon_text(account.epsilon),
            _prv(account),
            "-" if account.rdp is None else f"<= {epsilon_text(account.rdp)}",
            "-" if account.delta is None else f"{account.delta:g}",
            "?" if account.cap is None else cap_text(account.cap),
        )
    return made


def _whom(account: Account) -> str:
    """ "550 by patient": how many units, by which column; "900 by row" where each is one."""
    sizes = " / ".join(f"{size:,}" for size in account.sizes) or "?"
    columns = " / ".join(column or "row" for column in account.units) or "unit not said"
    return f"{sizes} by {columns}"


def _prv(account: Account) -> str:
    if account.prv is not None:
        return f"{math.floor(account.prv[0] * 100) / 100:.2f}-{epsilon_text(account.prv[1])}"
    return "-" if account.coarse is None else f"none; {epsilon_text(account.coarse)} on a wider grid"


def _runs(found: Recomputed) -> Iterator[Text]:
    """How epsilon came about: every run that drew on a data set, and what it rests on."""
    idle = found.ledgers.keys() - {account.institution for account in found.accounts}
    for name in sorted(idle):
        yield Text(f"{name}: nothing was charged", style="dim")
    for account in found.accounts:
        prints = len(account.fingerprints)
        versions = "" if prints < 2 else f", in {prints} versions"
        yield Text(f"{account.institution}, data set {account.dataset}{versions}:", style="dim")
        for run in account.runs:
            cap = "" if run.cap is None else f", under a cap of {run.cap:g}"
            free = "" if not run.unprotected else f", {run.unprotected} without a guarantee"
            dates = " to ".join(dict.fromkeys((run.first_utc[:10], run.last_utc[:10])))
            yield Text(f"  {run.run}: {run.events} charges in {run.rounds} rounds{free}{cap}, {dates}", style="dim")
        if account.least_honest is not None:
            words = f"  rests on secure aggregation with at least {account.least_honest} honest institutions in a sum"
            yield Text(f"{words}; without it epsilon {epsilon_text(account.without_masks)}", style="yellow")
        if account.free_releases:
            yield Text(
                f"  {account.free_releases} releases of shares of masks, in which no row has a part", style="dim"
            )
        if account.prv_problem:
            yield Text(f"  no PRV: {account.prv_problem}", style="dim")


def _findings(found: Recomputed, kind: str) -> Iterator[Text]:
    chosen: list[Finding] = [finding for finding in found.findings if finding.kind == kind]
    for finding in chosen:
        head = f"{_HEADS[kind]}: {finding.where}: {finding.code}: "
        yield Text.assemble((head, _STYLES[kind]), finding.text)
    if chosen:
        yield Text()


def _verdict(found: Recomputed) -> Text:
    if found.exit_code == FOUND:
        return Text("a claim does not hold", style="bold red")
    if found.exit_code == BAD_INPUT:
        return Text("not everything could be read: this is no confirmation", style="bold red")
    if any(account.epsilon == math.inf for account in found.accounts):
        return Text("what is stated is what the ledgers hold, and it is no guarantee for everyone", style="bold yellow")
    highest = max((account.epsilon or 0.0 for account in found.accounts), default=0.0)
    return Text(
        f"every figure holds: epsilon at most {epsilon_text(highest)}, for adding or removing one unit "
        f"({figure(len(found.ledgers)).split('.')[0]} ledgers read)",
        style="bold green",
    )
