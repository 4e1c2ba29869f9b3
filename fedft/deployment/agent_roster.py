"""The roster as an agent has it: its people put a newer file in place, and the next request is judged by it.

Guarantees:
- Names and keys are those of the newest roster that was seen, across restarts, signed by the policy's coordinator, with
  this institution's own key.
- While the file at ``institution.roster`` is anything else, ``refresh`` raises: an older one is not fallen back on.

A roster comes with no request: whoever could send one to a single institution could hide it among members that it made
up (docs/decisions/0021).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock

from fedft.config.policy import PolicyInstitution
from fedft.errors import ConfigError, IdentityError
from fedft.identity.keys import PublicKey
from fedft.identity.roster import Roster, changes, remember_roster

log = logging.getLogger(__name__)


class AgentRoster(Mapping[str, PublicKey]):
    """The members' identity keys by name, as of the last ``refresh``. For several threads.

    Parameters
    ----------
    memory : file of the newest roster seen
    own : this institution's key

    Raises what ``refresh`` raises.
    """

    def __init__(self, institution: PolicyInstitution, memory: Path, own: PublicKey) -> None:
        self._institution, self._memory, self._own = institution, memory, own
        self._change = Lock()
        self._seen: tuple[int, ...] | None = None
        self._roster: Roster | None = None
        self._keys: Mapping[str, PublicKey] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file if it is another than the last time.

        Raises
        ------
        IdentityError
            It is missing, another's, older than the newest seen, or without this institution's own key.
        StorageError
            The note of the newest one cannot be written.
        """
        with self._change:
            stamp = self._stamp()
            if stamp != self._seen:
                self._take(self._checked())
                self._seen = stamp

    def __getitem__(self, name: str) -> PublicKey:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._institution.roster.stat()
        except OSError as error:
            raise IdentityError(
                f"expected a roster at {self._institution.roster}, found {error.strerror}: put the newest in place"
            ) from None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _checked(self) -> Roster:
        institution = self._institution
        try:
            roster = Roster.read(institution.roster, PublicKey(institution.coordinator))
        except ConfigError as error:
            raise IdentityError(str(error)) from None
        if roster.federation != institution.federation:
            raise IdentityError(
                f'expected the roster of "{institution.federation}", found one of "{roster.federation}": fetch the '
                "right one, or correct institution.federation"
            )
        remember_roster(self._memory, roster)
        if roster.member(institution.name).key != self._own:
            raise IdentityError(
                f'expected the key that the roster has for "{institution.name}", found another in '
                f"{institution.identity.name}: start the agent again with the key that was admitted, or ask to be "
                "admitted again"
            )
        return roster

    def _take(self, roster: Roster) -> None:
        if self._roster is not None and roster.version != self._roster.version:
            told = "; ".join(changes(self._roster, roster)) or "the same members"
            log.info("version %d of the roster is in use: %s", roster.version, told)
        self._roster = roster
        self._keys = {member.name: member.key for member in roster.members}
