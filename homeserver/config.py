"""What Synapse reads, rendered from a dataclass: homeserver.yaml, the log's and the signing key.

Pure, except that `new_secrets` and `new_signing_key` draw random numbers.
"""

import base64
import json
import secrets
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import Final, Literal

Limits = Literal["default", "lifted"]

DEFAULT_ROOM_VERSION: Final = "12"
DEFAULT_SERVER_NAME: Final = "localhost"
LOOPBACK: Final = "127.0.0.1"

_LIFTED: Final = {"per_second": 1000, "burst_count": 10000}
_LIFTED_PLAIN: Final = (
    "rc_message",
    "rc_registration",
    "rc_registration_token_validity",
    "rc_admin_redaction",
    "rc_joins_per_room",
    "rc_key_requests",
    "rc_3pid_validation",
    "rc_third_party_invite",
    "rc_media_create",
    "rc_delayed_event_mgmt",
    "rc_room_creation",
    "rc_reports",
    "rc_user_directory",
    "rc_profile",
)
_LIFTED_FEDERATION: Final = {
    "window_size": 1000,
    "sleep_limit": 10000,
    "sleep_delay": 1,
    "reject_limit": 10000,
    "concurrent": 100,
}
_LIFTED_NESTED: Final = {
    "rc_login": ("address", "account", "failed_attempts"),
    "rc_joins": ("local", "remote"),
    "rc_invites": ("per_room", "per_user", "per_issuer"),
    "rc_presence": ("per_user",),
}


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A database in one file, good for one machine."""

    path: str


@dataclass(frozen=True, slots=True)
class Postgres:
    """A PostgreSQL database; it must have been made with encoding UTF8 and locale C."""

    host: str
    user: str
    password: str = field(repr=False)
    name: str
    port: int = 5432


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of one homeserver; they must survive its restarts."""

    shared: str = field(repr=False)
    macaroon: str = field(repr=False)
    form: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Federation:
    """How this server meets others: a TLS port, its certificate, and the authority that signed all of them.

    Its server name is then `127.0.0.1:tls_port`. Requests to others go through the CONNECT proxy `proxy`, if
    that is given. A server that can't be reached is tried again after `retry_s`, at most four times that.
    """

    tls_port: int
    certificate: str
    private_key: str
    authority: str
    proxy: str = ""
    retry_s: float = 600.0


@dataclass(frozen=True, slots=True)
class HomeserverConfig:
    """One homeserver as Synapse sees it: all paths are those of Synapse's own file system.

    `port` is where clients on this machine find it; `listen_port` (when not 0) and
    `bind_address` are for Synapse in a container, behind a published loopback port.
    `log_file` empty means: log to standard output.
    """

    server_name: str
    port: int
    data_dir: str
    secrets: Secrets
    database: Sqlite | Postgres
    default_room_version: str = DEFAULT_ROOM_VERSION
    limits: Limits = "default"
    delayed_events: bool = True
    bind_address: str = LOOPBACK
    listen_port: int = 0
    log_file: str = ""
    log_level: str = "WARNING"
    federation: Federation | None = None

    @property
    def base_url(self) -> str:
        """The address for clients on this machine."""
        return f"http://{LOOPBACK}:{self.port}"


def new_secrets() -> Secrets:
    """Draw the secrets for a new homeserver."""
    return Secrets(*(secrets.token_urlsafe(32) for _ in range(3)))


def new_signing_key() -> str:
    """Draw an ed25519 signing key, in the one-line form that Synapse stores."""
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"ed25519 a_{secrets.token_hex(2)} {seed}\n"


def render_homeserver(config: HomeserverConfig) -> str:
    """Render homeserver.yaml."""
    values = {
        "server_name": config.server_name,
        "public_baseurl": f"{config.base_url}/",
        "listen_port": config.listen_port or config.port,
        "bind_addresses": [config.bind_address],
        "database": _database(config.database),
        "log_config": f"{config.data_dir}/log.yaml",
        "media_store": f"{config.data_dir}/media",
        "signing_key": f"{config.data_dir}/signing.key",
        "shared_secret": config.secrets.shared,
        "macaroon_secret": config.secrets.macaroon,
        "form_secret": config.secrets.form,
        "room_version": config.default_room_version,
    }
    quoted = {name: json.dumps(value) for name, value in values.items()}
    return Template(_template()).substitute(
        quoted,
        limits=_limits(config.limits),
        tls_listener=_tls_listener(config.federation),
        federation=_federation(config.federation),
        delays="max_event_delay_duration: 24h" if config.delayed_events else "",
    )


def render_log(config: HomeserverConfig) -> str:
    """Render the log's configuration (JSON, which is YAML)."""
    handler: dict[str, str] = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    if config.log_file:
        handler = {"class": "logging.FileHandler", "filename": config.log_file}
    handler["formatter"] = "line"
    line = "%(asctime)s %(levelname)s %(name)s %(message)s"
    rendered = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": line}},
        "handlers": {"out": handler},
        "root": {"level": config.log_level, "handlers": ["out"]},
    }
    return json.dumps(rendered, indent=2) + "\n"


def _template() -> str:
    path = resources.files("homeserver").joinpath("homeserver.yaml.tmpl")
    return path.read_text(encoding="utf-8")


def _database(database: Sqlite | Postgres) -> dict[str, object]:
    if isinstance(database, Sqlite):
        return {"name": "sqlite3", "args": {"database": database.path}}
    args = {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password,
        "dbname": database.name,
        "cp_min": 2,
        "cp_max": 10,
    }
    return {"name": "psycopg2", "args": args}


def _tls_listener(federation: Federation | None) -> str:
    if federation is None:
        return ""
    listener = {
        "port": federation.tls_port,
        "type": "http",
        "tls": True,
        "bind_addresses": [LOOPBACK],
        "resources": [{"names": ["federation"]}],
    }
    return f"  - {json.dumps(listener)}\n"


def _federation(federation: Federation | None) -> str:
    if federation is None:
        return "# An island: no federation, nothing asked of other servers.\nfederation_domain_whitelist: []"
    lines: dict[str, object] = {
        "tls_certificate_path": federation.certificate,
        "tls_private_key_path": federation.private_key,
        "federation_custom_ca_list": [federation.authority],
        "ip_range_blacklist": [],
        "rc_federation": _LIFTED_FEDERATION,
        "federation": {
            "destination_min_retry_interval": f"{int(federation.retry_s * 1000)}",
            "destination_max_retry_interval": f"{int(federation.retry_s * 4000)}",
            "max_long_retries": 2,
            "max_short_retries": 1,
            "max_long_retry_delay": f"{int(federation.retry_s * 1000)}",
            "max_short_retry_delay": f"{int(federation.retry_s * 1000)}",
        },
    }
    if federation.proxy:
        lines["https_proxy"] = federation.proxy
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in lines.items())


def _limits(limits: Limits) -> str:
    if limits == "default":
        return "# Rate limits: Synapse's own defaults.\n"
    lifted: dict[str, object] = {name: _LIFTED for name in _LIFTED_PLAIN}
    for name, parts in _LIFTED_NESTED.items():
        lifted[name] = {part: _LIFTED for part in parts}
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in sorted(lifted.items()))
