"""nginx at both ends: the coordinator's door to its SuperLink, and an institution's forwarder.

Flower's one port carries the Fleet API beside those that register nodes and start runs, and its SuperNode cannot show
a client certificate (docs/decisions/0014). So the coordinator's nginx asks for a certificate of the federation's
authority and passes on the paths in FLEET_PATHS alone; an institution's nginx, on loopback, adds its certificate.

Guarantees, held by tests/deployment/test_open_door.py:
- Without a valid certificate that is not revoked, nothing is passed on.
- What is passed on goes to exactly one of FLEET_PATHS, whatever the request's path looked like.
- Neither nginx writes a request's or an answer's body to its disk or its logs.

Each runs as a normal user in a folder of its own: nginx -p FOLDER -e error.log -c nginx.conf.
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from pathlib import Path

from fedft.errors import ConfigError, FederationError

FLEET = "/v1/fleet"
FLEET_PATHS = (
    f"{FLEET}/activate-node",
    f"{FLEET}/deactivate-node",
    f"{FLEET}/send-node-heartbeat",
    f"{FLEET}/pull-messages",
    f"{FLEET}/push-messages",
    f"{FLEET}/pull-object",
    f"{FLEET}/push-object",
    f"{FLEET}/confirm-message-received",
    f"{FLEET}/get-run",
    f"{FLEET}/get-fab",
)
"""What a registered SuperNode calls. Not register-node and unregister-node: that is the coordinator's, on loopback."""

LARGE_PATH = f"{FLEET}/push-object"
CONFIGURATION = "nginx.conf"
PID_FILE = "nginx.pid"
MAX_OBJECT_MIB = 1100
"""Above an agent's max_request_bytes: an update travels as one object."""


def proxy_configuration(*, listen: str, port: int, superlink_port: int, max_object_mib: int = MAX_OBJECT_MIB) -> str:
    """nginx.conf of the coordinator's proxy.

    Its folder holds server.crt and server.key, ca.crt, and ca.crl, the list of revoked certificates. After a new list:
    nginx -s reload.
    """
    locations = _locations("superlink", max_object_mib, limits=True)
    return f"""\
# Made by fedft provision. The federation's door: institutions reach Flower's Fleet paths and nothing else.
{_HEAD}
http {{
{_COMMON}
    log_format fleet escape=json '{{"time":"$time_iso8601","institution":"$ssl_client_s_dn","path":"$uri",'
        '"status":$status,"bytes":$request_length,"seconds":$request_time}}';
    access_log access.log fleet;

    limit_req_zone $ssl_client_fingerprint zone=requests:1m rate=50r/s;
    limit_conn_zone $ssl_client_fingerprint zone=institution:1m;
    limit_conn_zone $binary_remote_addr zone=address:1m;

    upstream superlink {{
        server 127.0.0.1:{superlink_port} max_fails=0;
        keepalive 16;
    }}

    server {{
        listen {_address(listen, port)} ssl;
        ssl_certificate server.crt;
        ssl_certificate_key server.key;
        ssl_client_certificate ca.crt;
        ssl_crl ca.crl;
        ssl_verify_client on;
        ssl_verify_depth 1;

        proxy_ssl_trusted_certificate ca.crt;
        proxy_ssl_name localhost;

        limit_conn institution 32;
        limit_conn address 256;

        location / {{ return 403; }}
{locations}    }}
}}
"""


def forwarder_configuration(*, host: str, port: int, listen_port: int, max_object_mib: int = MAX_OBJECT_MIB) -> str:
    """nginx.conf of an institution's forwarder: its SuperNode's way to the coordinator at ``host``:``port``.

    Its folder holds client.crt and client.key, ca.crt, and loopback.crt and loopback.key.
    """
    locations = _locations("coordinator", max_object_mib, limits=False)
    return f"""\
# Made by fedft provision. Adds this institution's certificate to what its SuperNode sends to the coordinator.
{_HEAD}
http {{
{_COMMON}
    log_format fleet escape=json '{{"time":"$time_iso8601","path":"$uri","status":$status,'
        '"bytes":$request_length,"seconds":$request_time}}';
    access_log access.log fleet;

    upstream coordinator {{
        server {_address(host, port)} max_fails=0;
        keepalive 4;
    }}

    server {{
        listen 127.0.0.1:{listen_port} ssl;
        ssl_certificate loopback.crt;
        ssl_certificate_key loopback.key;

        proxy_ssl_certificate client.crt;
        proxy_ssl_certificate_key client.key;
        proxy_ssl_trusted_certificate ca.crt;
        proxy_ssl_name {_tls_name(host)};

        location / {{ return 403; }}
{locations}    }}
}}
"""


def nginx_command(folder: Path, *more: str) -> list[str]:
    """The command that runs nginx in the foreground on the configuration in ``folder``. ConfigError without nginx."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")
    if program is None:
        raise ConfigError("expected the program nginx, found none: install it, on Debian with apt-get install nginx")
    return [program, "-p", f"{folder.resolve()}/", "-e", "error.log", "-c", CONFIGURATION, *more]


def reload_nginx(folder: Path) -> bool:
    """Have the nginx that runs on ``folder`` read its configuration and lists anew; whether there is one.

    Raises FederationError if it runs and cannot be told.
    """
    if not _is_nginx(folder / PID_FILE):
        return False
    done = subprocess.run(  # noqa: S603  nginx alone
        nginx_command(folder, "-s", "reload"), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FederationError(
            "expected nginx to read the revoked certificates anew, found that it could not be told: restart the proxy "
            f"({' '.join(done.stderr.split())[-200:]})"
        )
    return True


def _is_nginx(pid_file: Path) -> bool:
    """Whether the process of a pid file runs and is an nginx: a file left behind may name any other."""
    try:
        return Path(f"/proc/{int(pid_file.read_text())}/comm").read_text().strip() == "nginx"
    except (OSError, ValueError):
        return False


_HEAD = f"""\
daemon off;
worker_processes 2;
pid {PID_FILE};
error_log error.log warn;
worker_shutdown_timeout 10s;
events {{ worker_connections 1024; }}
"""

_COMMON = """\
    server_tokens off;
    default_type application/octet-stream;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;

    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256;
    # A resumed session would not look at the certificate, nor at the list of revoked ones, again.
    ssl_session_cache off;
    ssl_session_tickets off;

    client_header_timeout 15s;
    client_body_timeout 60s;
    send_timeout 60s;
    keepalive_timeout 75s;
    reset_timedout_connection on;
    large_client_header_buffers 4 8k;
    client_max_body_size 1m;

    # Bodies are passed on as they come: never on this disk.
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_set_header Host $proxy_host;
    proxy_set_header Connection "";
    proxy_connect_timeout 15s;
    proxy_send_timeout 120s;
    proxy_read_timeout 120s;
    proxy_next_upstream off;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 1;
"""


def _locations(upstream: str, max_object_mib: int, *, limits: bool) -> str:
    """One location for each path, with the path spelled out: what is passed on is never the request's own spelling."""
    lines = []
    for path in FLEET_PATHS:
        lines += [f"        location = {path} {{", "            limit_except POST { deny all; }"]
        if limits:
            lines.append("            limit_req zone=requests burst=500 delay=100;")
        if path == LARGE_PATH:
            lines.append(f"            client_max_body_size {max_object_mib}m;")
        lines += [f"            proxy_pass https://{upstream}{path};", "        }"]
    return "\n".join(lines) + "\n"


def _tls_name(host: str) -> str:
    """The name that nginx looks for in the coordinator's certificate: it knows no addresses there."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return "localhost"


def _address(host: str, port: int) -> str:
    try:
        bracketed = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        bracketed = host
    return f"{bracketed}:{port}"
