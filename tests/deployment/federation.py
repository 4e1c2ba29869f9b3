"""A small federation in a temporary folder, made as its people would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.deployment.provision_request import JoinRequest


@dataclass(frozen=True)
class Made:
    """A coordinator's folder, and institutions beside it."""

    folder: Path
    coordinator: Coordinator

    @classmethod
    def at(cls, folder: Path, name: str = "hospitals") -> Made:
        return cls(folder, Coordinator.init(folder / f"{name}-coordinator", name=name, host="coordinator.example.org"))

    def institution(self, name: str, place: str | None = None) -> Institution:
        federation = self.coordinator.federation
        return Institution.request(
            self.folder / (place or name), name=name, federation=federation.name, coordinator=federation.coordinator
        )

    def request_of(self, institution: Institution) -> JoinRequest:
        return self.coordinator.read_request(institution.folder / "request.json")

    def member(self, name: str) -> Institution:
        institution = self.institution(name)
        self.coordinator.admit(self.request_of(institution))
        institution.accept(self.kit(name))
        return institution

    def kit(self, name: str) -> Path:
        version = self.coordinator.roster.version
        target = self.folder / f"{name}-{version}-{len(list(self.folder.iterdir()))}.tar.gz"
        self.coordinator.kit(name, target)
        return target


def private_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes())
