"""The node's settings: frozen models of the TOML file. Pure; `node/config.py` reads the file.

Durations are seconds. Paths are as written; the loader makes them absolute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, Strict, model_validator

from cisbot.core.dags.faults import fault, guard
from cisbot.core.dags.fields import Model, Name, RoomName, User, Users
from cisbot.core.ids import DagId, NodeId, check_name
from cisbot.core.scopes import ScopeKind
from cisbot.errors import FieldError

SECONDS_MAX = 366 * 86_400
END_DELAY_S_MIN = 3.0  # homeservers let an account restart delayed events once a second
CREDENTIALS = ("access_token", "password", "access_token_file", "password_file")

_RESERVED_NODES = ("any", "all")


class Isolation(StrEnum):
    """What a run that names no scope is grouped by, when nothing else tells."""

    PROJECT = "project"
    USER = "user"
    DAG_TYPE = "dag_type"
    GLOBAL = "global"

    @property
    def kind(self) -> ScopeKind:
        """The kind of scope that it means."""
        return ScopeKind.TYPE if self is Isolation.DAG_TYPE else ScopeKind(self.value)


class Act(StrEnum):
    """What a rule may allow."""

    PUBLISH = "publish"
    APPROVE = "approve"
    CANCEL = "cancel"


def _node_id(text: str) -> str:
    if text in _RESERVED_NODES:
        raise FieldError("node.id", f"{text!r} is a target's word", "another name, such as node-1")
    return check_name("node.id", text)


def masked(address: str) -> str:
    """An address for people: what stands before its last '@' may be a user and a password."""
    _, at, rest = address.rpartition("@")
    return f"…@{rest}" if at else address


def _homeserver(text: str) -> str:
    if not re.match(r"https?://[^\s/?#]+(/[^\s?#]*)?\Z", text):
        raise FieldError(
            "matrix.homeserver", f"{masked(text)[:80]!r} is not an address", "https://example.org"
        )
    return text.rstrip("/")


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise FieldError("matrix", "is empty", "the secret itself")
    return value


def _end_delay(seconds: float) -> float:
    if 0 < seconds < END_DELAY_S_MIN:
        raise FieldError(
            "coordinator.end_delay", f"{seconds:g} is too short", f"0 (off), or at least {END_DELAY_S_MIN:g}"
        )
    return seconds


Duration = Annotated[float, Field(gt=0, le=SECONDS_MAX)]
Secret = Annotated[SecretStr, Strict(False), AfterValidator(guard(_secret))]
FilePath = Annotated[Path, Strict(False)]
Paths = Annotated[tuple[FilePath, ...], Strict(False), Field(max_length=1000)]


class Coordinator(Model):
    """`[coordinator]`: how the node runs and claims."""

    enable_singleton: Literal[True] = True
    worker_idle_timeout: Duration = 300.0
    claim_lease_duration: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    max_workers: int = Field(default=8, ge=1, le=1000)
    max_runs: int = Field(default=16, ge=1, le=150)
    kill_grace: Annotated[float, Field(ge=0, le=3600)] = 10.0
    end_delay: Annotated[float, Field(ge=0, le=86_400), AfterValidator(guard(_end_delay))] = 30.0

    @property
    def armed_s(self) -> float:
        """The delay of this node's delayed end; 0 where it would free nothing sooner than the lease does."""
        return self.end_delay if self.end_delay < self.claim_lease_duration else 0.0


class Worker(Model):
    """`[worker]`: how runs share processes."""

    max_concurrent_tasks: int = Field(default=4, ge=1, le=1000)
    scope_isolation: Annotated[Isolation, Strict(False)] = Isolation.PROJECT


class Node(Model):
    """`[node]`: who this machine is and where its files are. `execute = false`: an entry node."""

    id: Annotated[NodeId, AfterValidator(guard(_node_id))] = Field(
        description="this machine's name, such as node-1"
    )
    labels: Annotated[Mapping[Name, Name], Field(max_length=100)] = Field(default_factory=dict)
    data_dir: FilePath = Path("data")
    dags: Paths = (Path("dags"),)
    execute: bool = True


class Matrix(Model):
    """`[matrix]`: the account and the room. Exactly one of the four credentials is given."""

    homeserver: Annotated[str, AfterValidator(guard(_homeserver))] = Field(
        description="the address of the homeserver, such as https://example.org"
    )
    user_id: User = Field(description="the bot's user id, such as @node-1:example.org")
    access_token: Secret | None = None
    password: Secret | None = None
    access_token_file: FilePath | None = None
    password_file: FilePath | None = None
    room: RoomName = Field(description="the room, #alias:server or !id:server")
    device_name: Annotated[str, Field(min_length=1, max_length=100)] = "cisbot"

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        given = [key for key in CREDENTIALS if getattr(self, key) is not None]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "has no credential"
            raise fault(FieldError("matrix", what, f"exactly one of: {', '.join(CREDENTIALS)}"))
        return self


class Rule(Model):
    """Who may: any of `users`, or anyone with that power level. `policy.allowed` decides.

    TOML has no null: `power_level = false` leaves it to the users alone.
    """

    power_level: int | None = Field(default=50, ge=-(2**53), le=2**53)
    users: Users = ()

    @model_validator(mode="before")
    @classmethod
    def _nobody(cls, raw: object) -> object:
        if isinstance(raw, Mapping) and raw.get("power_level") is False:
            return {**raw, "power_level": None}
        return raw


class DagPolicy(Model):
    """`[policy.dags.NAME]`: rules of one DAG; what is not given falls back to `[policy]`."""

    publish: Rule | None = None
    approve: Rule | None = None
    cancel: Rule | None = None


class Policy(Model):
    """`[policy]`: who may do what, and what the room may do to this node."""

    publish: Rule = Rule()
    approve: Rule = Rule()
    cancel: Rule = Rule()
    dags: Annotated[Mapping[Name, DagPolicy], Field(max_length=10_000)] = Field(default_factory=dict)
    dags_from_room: bool = False
    dags_from_room_users: Users = ()
    rooms: Annotated[tuple[RoomName, ...], Strict(False), Field(max_length=1000)] = ()
    memory: bool = True

    def rule(self, act: Act, dag: DagId) -> Rule:
        """The rule for one act on one DAG: its own, else the general one."""
        own = self.dags.get(dag)
        match act:
            case Act.PUBLISH:
                return (own and own.publish) or self.publish
            case Act.APPROVE:
                return (own and own.approve) or self.approve
            case Act.CANCEL:
                return (own and own.cancel) or self.cancel


class Settings(Model):
    """The whole file."""

    coordinator: Coordinator = Coordinator()
    worker: Worker = Worker()
    node: Node = Field(description="a section [node] with at least an id")
    matrix: Matrix = Field(description="a section [matrix] with homeserver, user_id, room, credential")
    policy: Policy = Policy()
