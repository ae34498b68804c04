"""The settings' models."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from cisbot.core.ids import DagId
from cisbot.core.scopes import ScopeKind
from cisbot.core.settings import Act, Isolation, Settings

MATRIX = {"homeserver": "https://x/", "user_id": "@n:x", "room": "#ops:x", "access_token": "secret"}


def make(**changes: object) -> Settings:
    return Settings.model_validate({"node": {"id": "node-1"}, "matrix": MATRIX, **changes})


def test_defaults() -> None:
    made = make()
    assert made.coordinator.enable_singleton and made.coordinator.worker_idle_timeout == 300
    assert made.coordinator.claim_lease_duration == 300 and made.coordinator.kill_grace == 10
    assert (made.coordinator.max_workers, made.coordinator.max_runs) == (8, 16)
    assert made.worker.max_concurrent_tasks == 4 and made.worker.scope_isolation is Isolation.PROJECT
    assert made.node.data_dir == Path("data") and made.node.execute
    assert made.matrix.homeserver == "https://x" and made.policy.memory and not made.policy.dags_from_room


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(make()) and "secret" not in make().model_dump_json()


def test_isolation_names_kinds_of_scopes() -> None:
    assert [one.kind for one in Isolation] == [*ScopeKind]


@pytest.mark.parametrize(
    ("end_delay", "lease", "armed"), [(30, 300, 30), (0, 300, 0), (30, 30, 0), (30, 24, 0), (4, 30, 4)]
)
def test_an_end_is_delayed_only_where_it_comes_before_the_lease(
    end_delay: float, lease: float, armed: float
) -> None:
    made = make(coordinator={"end_delay": end_delay, "claim_lease_duration": lease})
    assert made.coordinator.armed_s == armed


def test_rules_fall_back() -> None:
    own = {"backup": {"publish": {"power_level": 0}}, "deploy": {"approve": {"power_level": False}}}
    policy = make(policy={"dags": own, "cancel": {"power_level": 10}}).policy
    backup, deploy = DagId("backup"), DagId("deploy")
    assert policy.rule(Act.PUBLISH, backup).power_level == 0
    assert policy.rule(Act.PUBLISH, deploy).power_level == 50
    assert policy.rule(Act.APPROVE, deploy).power_level is None
    assert policy.rule(Act.APPROVE, backup).power_level == 50
    assert policy.rule(Act.CANCEL, backup).power_level == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"node": {"id": "all"}}, "target's word"),
        ({"node": {"id": "a b"}}, "not a name"),
        ({"node": {"id": "a", "labels": {"disk": ""}}}, "not a name"),
        ({"matrix": {**MATRIX, "homeserver": "x"}}, "not an address"),
        ({"matrix": {**MATRIX, "password": "x"}}, "access_token and password"),
        ({"matrix": {**MATRIX, "access_token": None}}, "has no credential"),
        ({"matrix": {**MATRIX, "access_token": " "}}, "is empty"),
        ({"worker": {"max_concurrent_tasks": "4"}}, "valid integer"),
        ({"worker": {"scope_isolation": "none"}}, "'project', 'user', 'dag_type' or 'global'"),
        ({"coordinator": {"worker_idle_timeout": 0}}, "greater than 0"),
        ({"coordinator": {"end_delay": 1}}, "1 is too short; expected 0 (off), or at least 3"),
        ({"coordinator": {"end_delay": -1}}, "greater than or equal to 0"),
        ({"other": {}}, "Extra inputs"),
    ],
)
def test_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(**changes)
    assert said in str(caught.value)
