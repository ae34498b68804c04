"""The instance's config becomes the node's settings, or words that an operator can act on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from cisbot.core.settings import Coordinator, Node, Policy, Worker
from cisbot.errors import CisbotError, FieldError
from plugins.settings import SECTIONS, Account, check_sections, settings_of

BASE = Path(__file__).parents[2] / "base-config.yaml"
ACCOUNT = Account("https://example.org/", "@bot:example.org", "secret-token")


def base() -> dict[str, dict[str, object]]:
    """What an instance starts with."""
    written = yaml.safe_load(BASE.read_text())
    assert isinstance(written, dict)
    return written


def test_the_base_config_has_every_key_and_the_defaults_of_the_toml_file() -> None:
    written = base()
    assert tuple(written) == SECTIONS
    sections: dict[str, type[BaseModel]] = {
        "node": Node, "coordinator": Coordinator, "worker": Worker, "policy": Policy
    }  # fmt: skip
    for name, model in sections.items():
        assert set(written[name]) == set(model.model_fields), name
    filled = {**written, "room": "#tasks:example.org", "node": {**written["node"], "id": "node-1"}}
    settings = settings_of(filled, ACCOUNT, Path("/srv"))
    assert settings.coordinator == Coordinator()
    assert settings.worker == Worker()
    assert settings.policy == Policy()


def test_the_account_is_the_clients_and_paths_start_at_the_folder() -> None:
    written = {"room": "!id", "node": {"id": "n", "data_dir": "data", "dags": ["/etc/dags", "more"]}}
    settings = settings_of(written, ACCOUNT, Path("/srv"))
    assert settings.matrix.homeserver == "https://example.org"
    assert settings.matrix.user_id == "@bot:example.org"
    assert settings.matrix.access_token is not None
    assert settings.matrix.access_token.get_secret_value() == "secret-token"
    assert settings.node.data_dir == Path("/srv/data")
    assert settings.node.dags == (Path("/etc/dags"), Path("/srv/more"))
    assert "secret-token" not in repr(ACCOUNT)


def test_an_instance_that_was_not_filled_in_says_what_is_missing() -> None:
    with pytest.raises(CisbotError) as caught:
        settings_of(base(), ACCOUNT, Path("/srv"))
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["node.id", "room"]


def test_an_unknown_section_is_refused_not_lost() -> None:
    with pytest.raises(FieldError, match="polcy: unknown section; .* Did you mean 'policy'?"):
        check_sections({"polcy": {}})
    with pytest.raises(FieldError, match="the config: is the text 'hello'; expected a mapping"):
        check_sections("hello")
    check_sections(base())
