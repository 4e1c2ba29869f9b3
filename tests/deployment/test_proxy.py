"""nginx's configuration at both ends: nginx itself accepts it, and what must be said in it is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from fedft.deployment.provision import Coordinator
from fedft.deployment.proxy import (
    FLEET_PATHS,
    forwarder_configuration,
    nginx_command,
    proxy_configuration,
    reload_nginx,
)
from fedft.errors import ConfigError
from tests.deployment.federation import Made
from tests.deployment.open_door import needs_nginx

PROXY = proxy_configuration(listen="0.0.0.0", port=8443, superlink_port=8000)
FORWARDER = forwarder_configuration(host="localhost", port=8443, listen_port=9093)


@pytest.mark.parametrize("text", [PROXY, FORWARDER], ids=["proxy", "forwarder"])
def test_only_the_fleet_paths_are_passed_on_each_spelled_out(text: str) -> None:
    assert re.findall(r"location (.+?) \{", text) == ["/", *(f"= {path}" for path in FLEET_PATHS)]
    assert re.findall(r"proxy_pass https://[a-z]+(/\S+);", text) == list(FLEET_PATHS)
    assert "location / { return 403; }" in text
    assert text.count("limit_except POST { deny all; }") == len(FLEET_PATHS)


@pytest.mark.parametrize(
    "line",
    [
        "ssl_verify_client on;", "ssl_verify_depth 1;", "ssl_crl ca.crl;", "ssl_client_certificate ca.crt;",
        "ssl_session_cache off;", "ssl_session_tickets off;", "ssl_protocols TLSv1.2 TLSv1.3;", "server_tokens off;",
        "proxy_ssl_verify on;", "client_max_body_size 1m;", "client_max_body_size 1100m;",
        "proxy_request_buffering off;", "limit_conn institution 32;", "server 127.0.0.1:8000 max_fails=0;",
        "client_header_timeout 15s;",
    ],
)  # fmt: skip
def test_the_door_is_as_narrow_as_it_says(line: str) -> None:
    assert line in PROXY


@pytest.mark.parametrize(
    "line",
    [
        "listen 127.0.0.1:9093 ssl;", "proxy_ssl_certificate client.crt;", "proxy_ssl_certificate_key client.key;",
        "proxy_ssl_trusted_certificate ca.crt;", "proxy_ssl_verify on;", "proxy_ssl_name localhost;",
    ],
)  # fmt: skip
def test_the_forwarder_shows_its_certificate_and_asks_for_the_coordinators(line: str) -> None:
    assert line in FORWARDER


def test_addresses_are_written_as_nginx_reads_them() -> None:
    assert "server [::1]:8443" in forwarder_configuration(host="::1", port=8443, listen_port=9093)
    assert "proxy_ssl_name localhost" in forwarder_configuration(host="10.0.0.7", port=8443, listen_port=9093)
    assert "proxy_ssl_name a.org" in forwarder_configuration(host="a.org", port=8443, listen_port=9093)
    assert "listen [::]:8443 ssl" in proxy_configuration(listen="::", port=8443, superlink_port=8000)


@needs_nginx
@pytest.mark.parametrize("listen", ["127.0.0.1", "::1"])
def test_nginx_accepts_both(tmp_path: Path, listen: str) -> None:
    coordinator = Coordinator.init(tmp_path / "c", name="hospitals", host="127.0.0.1", listen=listen)
    made = Made(tmp_path, coordinator)
    north = made.member("north")
    for folder in (coordinator.folder / "proxy", north.folder / "forwarder"):
        done = subprocess.run([*nginx_command(folder), "-t"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warn" not in done.stderr.replace("the configuration file", "")


def test_a_machine_without_nginx_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="apt-get install nginx"):
        nginx_command(tmp_path)


@pytest.mark.parametrize("content", ["", "none", "999999999", str(os.getpid())], ids=["empty", "text", "large", "own"])
def test_a_pid_file_left_behind_reaches_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "nginx.pid").write_text(content)
    assert not reload_nginx(tmp_path)
