"""What the doctor sees of a machine, and when it says that something is missing."""

from __future__ import annotations

import socket
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from fedft import doctor
from fedft.doctor import Finding, examine, is_healthy


def only(monkeypatch: pytest.MonkeyPatch, requirements: list[str], versions: dict[str, str]) -> dict[str, Finding]:
    """The findings on packages on a machine with these."""

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "version", version)
    return {finding.subject: finding for finding in examine()}


def test_every_declared_package_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    found = only(monkeypatch, ["a>=2", "b>=2", "c>=2", 'd>=1; extra == "dev"'], {"fedft": "1", "a": "2.1", "b": "1.9"})
    assert (found["a"].status, found["a"].detail) == ("ok", "2.1")
    assert found["b"].status == "missing"
    assert "expected >=2, found 1.9: pip install 'b>=2'" in found["b"].detail
    assert (found["c"].status, found["c"].detail) == ("missing", "not installed: pip install 'c>=2'")
    assert "d" not in found


def test_what_only_some_need_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    found = only(monkeypatch, [], {"fedft": "1"})
    assert (found["ray"].status, found["bitsandbytes"].status) == ("note", "note")
    assert "--engine flower" in found["ray"].detail
    assert is_healthy(list(found.values()))
    assert only(monkeypatch, [], {"fedft": "1", "ray": "2.55.1"})["ray"].status == "ok"


def test_it_is_unwell_without_a_required_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_healthy(list(only(monkeypatch, ["a>=2"], {"fedft": "1"}).values()))


def test_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found = only(monkeypatch, [], {"fedft": "1"})
    assert found["python"].status == "ok"
    for subject, word in (("processors", "usable"), ("memory", "GB"), ("disk", "GB free")):
        assert word in found[subject].detail
    assert "gpu" in found or "cuda:0" in found


def test_an_old_python_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    assert only(monkeypatch, [], {"fedft": "1"})["python"].status == "missing"


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(socket, "create_connection", fail)
    assert f"switched off by {name}" in only(monkeypatch, [], {"fedft": "1"})["model hub"].detail


def test_a_hub_that_answers_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, float]] = []

    class Connection:
        def close(self) -> None: ...

    def connect(address: Any, timeout: float) -> Connection:
        asked.append((address, timeout))
        if "away" in address[0]:
            raise TimeoutError
        return Connection()

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    assert only(monkeypatch, [], {"fedft": "1"})["model hub"].status == "ok"
    monkeypatch.setenv("HF_ENDPOINT", "https://away.example:8443")
    assert only(monkeypatch, [], {"fedft": "1"})["model hub"].status == "note"
    assert asked == [(("hub.example", 80), 3.0), (("away.example", 8443), 3.0)]
