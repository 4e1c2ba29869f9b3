"""The coordinator's side of a withdrawal: a member's signed statement, checked, kept, and the member revoked.

::

    FOLDER/revoked/NAME-VERSION/withdrawal.json    beside what else is kept of who left

Guarantee: a statement is kept only if the key that the roster has for its institution signed it; the institution is off
the roster when take_leave returns, and a run that goes on notes it in its audit log before the next round.
"""

from __future__ import annotations

from pathlib import Path

from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_files import replace_file
from fedft.deployment.withdrawal import FILE
from fedft.errors import ConfigError, IdentityError
from fedft.identity.roster import Roster
from fedft.identity.withdrawal import MAX_WITHDRAWAL, Withdrawal


def take_leave(coordinator: Coordinator, name: str, file: Path) -> Roster:
    """Keep the statement in ``file`` and revoke its institution, ``name``; the next version of the roster.

    Raises
    ------
    IdentityError
        It is no member, or the statement is not its own, of its key in the roster, to this federation.
    """
    federation = coordinator.federation
    try:
        with file.open("rb") as source:
            text = source.read(MAX_WITHDRAWAL + 1).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"expected a withdrawal at {file}, found {error.strerror}: correct the path") from None
    left, member = Withdrawal.open(text), coordinator.roster.member(name)
    expected = (federation.name, federation.coordinator.text, name, member.key.text)
    if (left.federation, left.coordinator, left.name, left.key) != expected:
        raise IdentityError(
            f'expected a withdrawal of "{name}" from "{federation.name}" under its key in the roster, found another: '
            "give its own, or leave it out to revoke without"
        )
    replace_file(coordinator.folder / "members" / name / FILE, text.encode())
    return coordinator.revoke(name)


def withdrawals_in(folder: Path) -> list[str]:
    """The statements that are kept in a coordinator's folder."""
    return [file.read_text() for file in sorted((folder / "revoked").glob(f"*/{FILE}"))]
