"""Commands that make a federation of organisations: fedft provision ..."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from fedft.cli.frame import AsJson, hint, say
from fedft.errors import ConfigError, FedftError

Folder = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
SuperLink = Annotated[
    str | None,
    typer.Option(
        metavar="CONNECTION|HOST:PORT", help="Tell this SuperLink at once, a connection of DIR/flower or an address."
    ),
]
Port = Annotated[int, typer.Option(min=1, max=65535)]

app = typer.Typer(help="Make a federation of organisations: keys, certificates, members.", no_args_is_help=True)


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(metavar="FEDERATION", help="The federation's name.")],
    host: Annotated[str, typer.Option(metavar="HOSTNAME", help="Where institutions reach the coordinator.")],
    port: Port = 8443,
    listen: Annotated[str, typer.Option(metavar="ADDRESS", help="Address the proxy listens on.")] = "0.0.0.0",  # noqa: S104
    superlink_port: Port = 8000,
) -> None:
    """Coordinator: make the folder DIR with keys, authority, certificates, an empty roster and the proxy's set-up."""
    from fedft.deployment.provision import Coordinator
    from fedft.deployment.provision_start import start_commands

    made = Coordinator.init(folder, name=name, host=host, port=port, listen=listen, superlink_port=superlink_port)
    say(f"made {folder}; give every institution {folder / 'federation.json'}")
    say(f"and, by phone, the fingerprint of its key:\n  {made.federation.coordinator.fingerprint}")
    commands = "\n\n".join(start_commands(superlink_port))
    hint(f"to start, each in a terminal of its own after cd {shlex.quote(str(folder))}, in this order:\n\n{commands}\n")
    hint(f"{folder / 'README.md'} has them too, and what comes next")


@app.command()
def request(
    folder: Folder,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The institution's name.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="federation.json of the coordinator.")
    ] = None,
    coordinator_key: Annotated[
        str | None, typer.Option(metavar="ed25519:...", help="The coordinator's key, as its people told you.")
    ] = None,
    federation: Annotated[
        str | None, typer.Option(metavar="FEDERATION", help="Its name, if not given by --from.")
    ] = None,
    forwarder_port: Annotated[int | None, typer.Option(min=1, max=65535, help="On loopback.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="New keys for the institution in DIR; the old ones sign for them.")
    ] = False,
) -> None:
    """Institution: make keys in DIR, which never leave it, and the request to join with their public parts."""
    from fedft.deployment.provision_institution import Institution

    if replace:
        if any(value is not None for value in (name, from_, coordinator_key, federation, forwarder_port)):
            raise typer.BadParameter("with --replace, everything else is known: give DIR alone")
        made, file = Institution.open(folder), None
        file = made.request_replacement()
    else:
        made, file = _new_institution(folder, name, from_, coordinator_key, federation, forwarder_port)
        say(f"the coordinator's fingerprint, to compare by phone:\n  {made.coordinator.fingerprint}")
    say(f"send {file} to the coordinator, and read this fingerprint to its people:\n  {_fingerprint(file)}")


@app.command()
def admit(
    folder: Folder,
    file: Annotated[Path, typer.Argument(metavar="REQUEST", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="A member's new keys, signed for by its old one.")] = False,
    superlink: SuperLink = None,
    fingerprint: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The fingerprint that its people read to you; asked for without.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long its certificate is valid.")] = 825,
) -> None:
    """Coordinator: admit the institution of REQUEST, once its people confirmed the fingerprint by phone."""
    from fedft.deployment.provision import Coordinator

    coordinator = Coordinator.open(folder)
    asked = coordinator.read_request(file)
    found = asked.member.key.fingerprint
    if fingerprint is None:
        say(f'"{asked.member.name}" asks to join "{asked.federation}"; the fingerprint of its key:\n  {found}')
        typer.confirm("Did its people, called on a number you know, read you the same?", abort=True)
    elif "".join(fingerprint.lower().split()) != found.replace(" ", ""):
        raise ConfigError(
            f"expected the fingerprint that was read to you, found {found} in the request: do not admit it; ask the "
            "institution for its request again"
        )
    roster = coordinator.admit(asked, replacing=replace, days=days)
    say(f'admitted "{asked.member.name}": version {roster.version} of the roster, {len(roster.members)} members')
    if replace:
        _reload(folder, coordinator.reload_proxy())
    _tell(coordinator, superlink, folder)
    hint(f"next: fedft provision kit {folder} {asked.member.name} --out {asked.member.name}-kit.tar.gz")
    _pass_on(folder)


@app.command()
def kit(
    folder: Folder,
    name: Name,
    out: Annotated[Path, typer.Option(metavar="FILE.tar.gz|DIR", help="Where to write it.")],
) -> None:
    """Coordinator: write what the member NAME needs to start. Nothing in it is secret."""
    from fedft.deployment.provision import Coordinator

    Coordinator.open(folder).kit(name, out)
    say(f"wrote {out}; send it to {name}, where it is put in place with: fedft provision accept DIR {out.name}")


@app.command()
def accept(folder: Folder, file: Annotated[Path, typer.Argument(metavar="KIT", show_default=False)]) -> None:
    """Institution: check the KIT and put it in place in DIR."""
    from fedft.deployment.provision_institution import Institution

    institution, first = Institution.open(folder), not (folder / "policy.toml").exists()
    roster = institution.accept(file)
    institution.check()
    say(f'version {roster.version} of the roster of "{roster.federation}"; how to start: {folder / "README.md"}')
    say(f"its members: {', '.join(member.name for member in roster.members)}")
    if first:
        hint(f"before the first start, say in {folder / 'policy.toml'} what the federation may do")
    else:
        hint("with new keys: restart forwarder, agent and SuperNode")


@app.command()
def update(folder: Folder, file: Annotated[Path, typer.Argument(metavar="ROSTER", show_default=False)]) -> None:
    """Institution: take the coordinator's newer ROSTER. A running agent needs no restart."""
    from fedft.deployment.provision_institution import Institution

    roster, told = Institution.open(folder).update(file)
    say(f'version {roster.version} of the roster of "{roster.federation}"; {"; ".join(told) or "the same members"}')


@app.command()
def check(folder: Folder) -> None:
    """Before a start: are the keys in DIR private, its certificates valid, its roster signed and with these keys?

    Says nothing if so, exit code 0.
    """
    from fedft.deployment.provision import Coordinator
    from fedft.deployment.provision_institution import Institution

    if (folder / "coordinator.json").exists():
        Coordinator.open(folder).check()
    else:
        Institution.open(folder).check()


@app.command()
def revoke(
    folder: Folder,
    name: Name,
    superlink: SuperLink = None,
    withdrawal: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its own signed statement, of fedft withdraw, to be kept.")
    ] = None,
) -> None:
    """Coordinator: remove the member NAME. From the next round on it takes no part."""
    from fedft.deployment.provision import Coordinator
    from fedft.deployment.provision_leaving import take_leave

    coordinator = Coordinator.open(folder)
    roster = coordinator.revoke(name) if withdrawal is None else take_leave(coordinator, name, withdrawal)
    say(f'revoked "{name}": version {roster.version} of the roster, {len(roster.members)} members')
    hint("which adapters have its updates, and what being without would take: fedft audit contributions RUN")
    _reload(folder, coordinator.reload_proxy())
    _tell(coordinator, superlink, folder)
    _pass_on(folder)


@app.command()
def register(folder: Folder, superlink: SuperLink = None) -> None:
    """Coordinator: make the running SuperLink's nodes those of the roster, also after it lost its database."""
    from fedft.deployment.provision import Coordinator

    coordinator = Coordinator.open(folder)
    added = coordinator.register(superlink)
    say(f"registered {', '.join(added)}" if added else "nothing new to register")


@app.command()
def renew(folder: Folder) -> None:
    """Coordinator: new certificates for proxy and SuperLink, and the proxy's set-up written anew."""
    from fedft.deployment.provision import Coordinator

    coordinator = Coordinator.open(folder)
    coordinator.renew()
    say("new certificates for the proxy and the SuperLink; restart the SuperLink between two runs")
    _reload(folder, coordinator.reload_proxy())


@app.command()
def members(folder: Folder, as_json: AsJson = False) -> None:
    """Coordinator: who is in the roster, with fingerprints and the days their certificates are still valid."""
    from fedft.deployment.provision import Coordinator

    coordinator = Coordinator.open(folder)
    listed = coordinator.listed()
    if as_json:
        roster = coordinator.roster
        say(json.dumps({"federation": roster.federation, "version": roster.version, "members": listed}, indent=2))
        return
    for one in listed:
        node = "registered" if one["registered"] else "not registered"
        say(f"{one['name']}  {one['fingerprint']}  certificate: {one['days']} days  {node}")


def _new_institution(
    folder: Path, name: str | None, source: Path | None, key: str | None, federation: str | None, port: int | None
) -> tuple[Any, Path]:
    from fedft.deployment.provision_federation import Federation
    from fedft.deployment.provision_institution import Institution
    from fedft.deployment.provision_kit import FORWARDER_PORT
    from fedft.identity.keys import PublicKey

    if name is None:
        raise typer.BadParameter("give the institution's name with --name")
    given = None if key is None else PublicKey(key)
    if source is not None:
        found = Federation.read(source)
        if (given or found.coordinator) != found.coordinator or (federation or found.name) != found.name:
            raise ConfigError(
                f"expected the federation and the key that were given, found others in {source}: "
                "ask the coordinator's people which are theirs"
            )
        given, federation = found.coordinator, found.name
    if given is None or federation is None:
        raise typer.BadParameter("give --from FILE, or --coordinator-key with --federation")
    made = Institution.request(
        folder, name=name, federation=federation, coordinator=given, forwarder_port=port or FORWARDER_PORT
    )
    return made, folder / "request.json"


def _fingerprint(request: Path) -> str:
    from fedft.identity.keys import PublicKey

    return PublicKey(json.loads(request.read_bytes())["signed"]["key"]).fingerprint


def _tell(coordinator: Any, superlink: str | None, folder: Path) -> None:
    if superlink is None:
        hint(f"tell the running SuperLink: fedft provision register {folder}")
        return
    try:
        coordinator.register(superlink)
    except FedftError as error:
        raise type(error)(f"the roster is written, the SuperLink does not know yet: {error}") from error
    say("told the SuperLink")


def _pass_on(folder: Path) -> None:
    hint(
        f"where updates are masked, every member needs {folder / 'roster.json'}: fedft provision update DIR roster.json"
    )


def _reload(folder: Path, told: bool) -> None:
    say("told the proxy" if told else f"no proxy runs in {folder / 'proxy'}; if it runs elsewhere, restart it there")
