"""What Synapse and docker compose are given to read."""

import base64
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from homeserver import compose, instance
from homeserver.config import (
    HomeserverConfig,
    Postgres,
    Secrets,
    Sqlite,
    new_secrets,
    new_signing_key,
    render_homeserver,
    render_log,
)
from homeserver.errors import HomeserverError
from homeserver.install import REQUIREMENTS, install

SECRETS = Secrets("a: 'shared' $secret", "m", "f")


def config(**changes: Any) -> HomeserverConfig:
    """Build a configuration, its values as given or plain ones."""
    values: dict[str, Any] = {
        "server_name": "cis.test",
        "port": 20123,
        "data_dir": "/some where/data",
        "secrets": SECRETS,
        "database": Sqlite("/some where/data/homeserver.db"),
    }
    return HomeserverConfig(**(values | changes))


def test_homeserver_yaml_is_a_loopback_island() -> None:
    rendered = yaml.safe_load(render_homeserver(config(default_room_version="11")))
    assert rendered["server_name"] == "cis.test"
    assert rendered["public_baseurl"] == "http://127.0.0.1:20123/"
    [listener] = rendered["listeners"]
    assert (listener["port"], listener["bind_addresses"]) == (20123, ["127.0.0.1"])
    assert listener["resources"] == [{"names": ["client"]}]
    assert rendered["federation_domain_whitelist"] == rendered["trusted_key_servers"] == []
    assert rendered["presence"] == {"enabled": False}
    assert rendered["url_preview_enabled"] is False
    assert rendered["enable_registration"] is False
    assert rendered["bcrypt_rounds"] == 4
    assert rendered["caches"] == {"sync_response_cache_duration": "0s"}
    assert rendered["max_event_delay_duration"] == "24h"
    assert rendered["default_room_version"] == "11"
    assert rendered["registration_shared_secret"] == SECRETS.shared
    assert rendered["signing_key_path"] == "/some where/data/signing.key"
    database = {"name": "sqlite3", "args": {"database": "/some where/data/homeserver.db"}}
    assert rendered["database"] == database


def test_limits_are_synapses_own_unless_lifted() -> None:
    default = yaml.safe_load(render_homeserver(config()))
    lifted = yaml.safe_load(render_homeserver(config(limits="lifted")))
    assert not [name for name in default if name.startswith("rc_")]
    assert lifted["rc_message"]["burst_count"] == 10000
    assert lifted["rc_login"]["address"] == lifted["rc_invites"]["per_user"] == lifted["rc_message"]


def test_postgres() -> None:
    database = Postgres("db", "synapse", "p'w", "matrix")
    args = yaml.safe_load(render_homeserver(config(database=database)))["database"]["args"]
    assert (args["host"], args["user"], args["password"], args["dbname"]) == (
        ("db", "synapse", "p'w", "matrix")
    )


def test_log_goes_to_the_file_or_standard_output() -> None:
    to_file = yaml.safe_load(render_log(config(log_file="/x/synapse.log")))
    assert to_file["handlers"]["out"]["filename"] == "/x/synapse.log"
    assert yaml.safe_load(render_log(config()))["handlers"]["out"]["stream"] == "ext://sys.stdout"


def test_secrets_differ_and_do_not_show() -> None:
    assert new_secrets() != new_secrets()
    shown = repr(config(database=Postgres("db", "synapse", "hidden-password", "matrix")))
    assert "hidden-password" not in shown
    assert SECRETS.shared not in shown


def test_signing_key_has_synapses_form() -> None:
    kind, version, seed = new_signing_key().split()
    assert (kind, version[:2]) == ("ed25519", "a_")
    assert len(base64.b64decode(seed + "=")) == 32


def test_an_instance_is_kept_and_cannot_be_renamed(tmp_path: Path) -> None:
    first = instance.prepare(tmp_path, server_name="one.test")
    assert instance.prepare(tmp_path) == instance.load(tmp_path) == first
    with pytest.raises(HomeserverError, match="one.test"):
        instance.prepare(tmp_path, server_name="two.test")


def test_a_damaged_instance_is_named(tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text("{}")
    with pytest.raises(HomeserverError, match=r"instance\.json is damaged"):
        instance.load(tmp_path)


def test_compose_init_writes_private_files_and_keeps_secrets(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = compose.init(data, server_name="cis.test")
    names = {".env", "homeserver.yaml", "log.yaml", "signing.key", "instance.json"}
    before = {name: (data / name).read_text() for name in names}
    assert {path.name for path in data.iterdir()} == names
    assert all(stat.S_IMODE((data / name).stat().st_mode) == 0o600 for name in names)
    assert command.startswith(f"docker compose --env-file {data / '.env'} -f ")
    assert compose.init(data) == command
    assert {name: (data / name).read_text() for name in names} == before
    rendered = yaml.safe_load(before["homeserver.yaml"])
    assert rendered["listeners"][0]["port"] == 8008
    assert rendered["log_config"] == "/data/log.yaml"
    assert f"POSTGRES_PASSWORD='{rendered['database']['args']['password']}'" in before[".env"]


def test_compose_file_fits_what_init_writes(tmp_path: Path) -> None:
    compose.init(tmp_path)
    text = compose.COMPOSE_FILE.read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "synapse"}
    assert all("healthcheck" in service for service in services.values())
    assert services["synapse"]["ports"][0].startswith("127.0.0.1:")
    assert "ports" not in services["postgres"]
    for line in (tmp_path / ".env").read_text().splitlines():
        assert "${" + line.partition("=")[0] + ":?" in text
    [pin] = [line for line in REQUIREMENTS.read_text().splitlines() if "matrix-synapse" in line]
    assert services["synapse"]["image"] == f"matrixdotorg/synapse:v{pin.partition('==')[2]}"


def test_compose_file_is_whole(tmp_path: Path) -> None:
    """Docker is not at hand everywhere; this is what it would refuse, or find missing once it runs."""
    compose.init(tmp_path)
    file = yaml.safe_load(compose.COMPOSE_FILE.read_text())
    rendered = yaml.safe_load((tmp_path / "homeserver.yaml").read_text())
    assert set(file) == {"name", "services", "volumes"}
    known = {"image", "restart", "environment", "volumes", "healthcheck", "depends_on", "ports"}
    for service in file["services"].values():
        assert set(service) <= known
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert set(service.get("depends_on", {})) <= set(file["services"])
        for volume in service["volumes"]:
            if isinstance(volume, str):
                assert volume.partition(":")[0] in file["volumes"], volume
    postgres, synapse = file["services"]["postgres"], file["services"]["synapse"]
    args = rendered["database"]["args"]
    assert rendered["database"]["name"] == "psycopg2"
    assert (args["user"], args["dbname"]) == (
        postgres["environment"]["POSTGRES_USER"], postgres["environment"]["POSTGRES_DB"],
    )  # fmt: skip
    assert args["host"] in file["services"]
    [data] = synapse["volumes"]
    assert (data["type"], data["target"]) == ("bind", "/data")
    for path in (rendered["log_config"], rendered["signing_key_path"]):
        assert Path(path).parent == Path(data["target"]) and (tmp_path / Path(path).name).is_file()
    [listener] = rendered["listeners"]
    assert synapse["ports"][0].rpartition(":")[2] == str(listener["port"])
    assert f"localhost:{listener['port']}/" in synapse["healthcheck"]["test"][-1]


def test_compose_stands_any_folder(tmp_path: Path) -> None:
    data = tmp_path / "it's: odd"
    command = shlex.split(compose.init(data))
    assert command[:4] == ["docker", "compose", "--env-file", str(data / ".env")]
    assert f"SYNAPSE_DATA='{tmp_path}/it\\'s: odd'\n" in (data / ".env").read_text()
    assert shlex.split(compose.init(data)) == command


@pytest.mark.synapse
def test_synapse_reads_what_compose_gives_it(tmp_path: Path) -> None:
    compose.init(tmp_path, server_name="cis.test")
    python = install()
    path = tmp_path / "homeserver.yaml"
    path.write_text(path.read_text().replace("/data/", f"{tmp_path}/"))
    log = tmp_path / "log.yaml"
    log.write_text(log.read_text().replace("/data/", f"{tmp_path}/"))
    command = [str(python), "-I", "-m", "synapse.config", "read", "server.server_name", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()[-8:]) == (0, "cis.test"), done.stderr + done.stdout
