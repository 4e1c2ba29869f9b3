"""A new run that goes on from the newest state of another that has no update of some of its institutions.

Guarantees:
- The parent's folder is read and not changed: its history stays as it is, and the new run has one of its own, in which
  the parent, the state and who is left out are named (records/lineage.py).
- The state that it begins with holds no update of those who are left out, as the parent's records say.
- Nobody's budget is given back: ledgers go on from where they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fedft.assembly.masking import masking_terms
from fedft.assembly.runs import as_written, resume_config, run_name
from fedft.audit.contributions import Contributions, contributions_of
from fedft.config import FederationConfig, with_overrides
from fedft.errors import ConfigError, StorageError
from fedft.ledger.store import Ledger
from fedft.model.checkpoint import read_checkpoint, storage_errors, whole_folder
from fedft.records.lineage import Parent, first_sums
from fedft.records.log import read_head
from fedft.rounds.continual import inherit
from fedft.rounds.run_folder import RunFolder

_OF_A_LEDGER = ("", "-wal", ".head")
_LEDGER = "ledger.sqlite"


def begin_without(names: Sequence[str], *, parent: Path, folder: Path, overrides: Sequence[str] = ()) -> Parent:
    """Make ``folder``, a new one, the run that trains ``parent`` anew without ``names``; what it goes on from.

    overrides: as of --set. Where it is told to be played, it is resumed.

    Raises
    ------
    ConfigError
        A name that is not of the run, or without any update in it; too few without them; a folder in use; a parent that
        is being played.
    StorageError
        The parent's folder is damaged, or the disk refuses.
    """
    store = RunFolder(parent)
    if store.is_played:
        raise ConfigError(f"expected nobody to play the run in {parent}, found that a process does: wait for its end")
    config, found = resume_config(parent, overrides), contributions_of(parent)
    if config.variants:
        raise ConfigError(
            f"expected one run, found one with variants: name one, as {parent / next(iter(config.variants))}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"expected a new folder for the run, found {folder} with something in it: choose another")
    before = store.parent()
    left_out = {*names, *(() if before is None else before.without)}
    _require_left(names, found)
    _require_enough(config, [one.institution for one in found.institutions if one.institution not in left_out])
    number = min(found.of(name).free for name in names)
    contributed = {
        one.institution: rounds
        for one in found.institutions
        if (rounds := tuple(round for round in one.rounds if round <= number))
    }
    made = Parent(
        run=found.run,
        round=number,
        without=tuple(sorted(left_out)),
        contributed=contributed,
        checkpoint=store.checkpoint_digest(number) if number else "",
        head=read_head(parent) or "",
    )
    _copy(parent, folder, made)
    alone = with_overrides(config, {"outcome.checks": []})  # announced of the whole federation
    RunFolder(folder).create(as_written(alone, run=run_name(config, folder, resume=False), parent=made))
    return made


def is_begun(folder: Path, *, parent: Path, names: Sequence[str]) -> bool:
    """Whether ``folder`` is a run that trains ``parent`` anew without ``names``: it is gone on with."""
    if not (folder / "config.json").is_file():
        return False
    made = RunFolder(folder).parent()
    return made is not None and made.run == RunFolder(parent).config()["run"] and set(names) <= set(made.without)


def _require_left(names: Sequence[str], found: Contributions) -> None:
    known = [one.institution for one in found.institutions]
    strangers = [name for name in names if name not in known]
    if strangers:
        raise ConfigError(
            f"expected institutions of the run, {', '.join(known)}, found {', '.join(strangers)}: correct it"
        )
    if not any(found.of(name).rounds for name in names):
        raise ConfigError(
            f"expected an update of {', '.join(names)} in the run, found none: there is nothing to train anew; use "
            "it as it is"
        )


def _require_enough(config: FederationConfig, rest: Sequence[str]) -> None:
    least = config.federation.min_institutions
    if not rest or len(rest) < least:
        raise ConfigError(
            f"expected at least {max(least, 1)} institutions to be left, found {len(rest)}: leave fewer out"
        )
    if config.secure_aggregation.enabled:
        masking_terms(config).shape(len(rest))


def _copy(parent: Path, folder: Path, made: Parent) -> None:
    """The state as it is, byte for byte; of a simulation its ledgers, each verified where it is now, and what was
    consolidated up to that state."""
    if made.round:
        name = f"checkpoints/round-{made.round:04d}"
        _, manifest = read_checkpoint(parent / name)
        if set(made.without) & first_sums(manifest["records"]).keys():
            raise StorageError(
                f"expected {name} as metrics.jsonl has it, found an update of who is left out: restore both"
            )
        with whole_folder(folder / name) as target:
            shutil.copytree(parent / name, target, dirs_exist_ok=True)
    for home in sorted(parent.glob("institutions/*")):
        if home.name not in made.without:
            inherit(home, folder / "institutions" / home.name, made.round)
    for ledger in sorted(parent.glob(f"institutions/*/{_LEDGER}")):
        if ledger.parent.name in made.without:
            continue
        home = folder / "institutions" / ledger.parent.name
        with storage_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            for part in _OF_A_LEDGER:
                if (source := ledger.with_name(_LEDGER + part)).is_file():
                    shutil.copyfile(source, home / source.name)
        Ledger.open(home / _LEDGER, read_only=True).close()
