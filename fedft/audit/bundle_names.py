"""What of a run may go into an archive: a list of what is allowed, so that a file nobody thought of stays out.

Guarantee: no name outside ``_RUN`` and ``_LEDGER`` is packed, and none is unpacked. No private key, no key of a masked
round, no log, no count of an institution's rows and no file of Flower's has such a name.
"""

from __future__ import annotations

import re

RUN, LEDGERS, VERIFY = "run", "ledgers", "VERIFY.txt"
"""In an archive: the run's folder, ledgers from elsewhere by institution, and what to do with it all."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_LEDGER = r"ledger\.sqlite(?:\.head|-wal)?"
_RUN = re.compile(
    "|".join(
        (
            r"audit\.jsonl|audit\.head|metrics\.jsonl",
            r"(?:config|summary|secagg)\.json",
            r"report\.(?:html|json|pdf)",
            r"adapter/(?:adapter_model|head)\.safetensors",
            r"adapter/(?:adapter_config|fedft)\.json",
            r"checkpoints/(?:best|round-[0-9]{4,9})/(?:manifest\.json|tensors-[0-9a-f]{16}\.safetensors)",
            rf"institutions/{_NAME}/(?:{_LEDGER}|ledger\.sqlite\.lock)",
        )
    )
)
_ELSEWHERE = re.compile(rf"{LEDGERS}/{_NAME}/{_LEDGER}")


def is_packed(name: str) -> bool:
    """Whether the file at this path in a run's folder goes into an archive."""
    return _RUN.fullmatch(name) is not None


def is_known(name: str) -> bool:
    """Whether an archive may hold a file of this name, beside its checksums."""
    if name == VERIFY or _ELSEWHERE.fullmatch(name) is not None:
        return True
    return name.startswith(f"{RUN}/") and is_packed(name.removeprefix(f"{RUN}/"))
