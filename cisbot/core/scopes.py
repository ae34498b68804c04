"""Scopes: what shares a worker, how a scope is written and inferred; and the keys that a run claims."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, DagId, NodeId, check_name
from cisbot.errors import FieldError


class ScopeKind(StrEnum):
    """The four kinds of scope."""

    PROJECT = "project"
    USER = "user"
    TYPE = "type"
    GLOBAL = "global"


LOCK_PREFIX = "lock:"  # of the claim keys of named locks; no DAG and no scope has a ":"
DAG_TYPES = ("backup", "deploy", "build", "test", "report", "sync", "check", "cleanup")
_PROJECT = re.compile(r"(proj-[a-z0-9]+)(?:[-_.]|\Z)")
_USER = re.compile(r"user-([A-Za-z0-9]+)(?:[-_.]|\Z)")


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One worker a node serves one scope; `Global` has one worker in the whole cluster."""

    kind: ScopeKind
    name: str = ""

    @property
    def label(self) -> str:
        """`project-proj-a`, `global`: for keys, workers and people."""
        return f"{self.kind}-{self.name}" if self.name else str(self.kind)

    @property
    def worker_name(self) -> str:
        """`worker-project-proj-a`, `worker-global`."""
        return f"worker-{self.label}"


GLOBAL = Scope(ScopeKind.GLOBAL)


def parse_scope(text: str, field: str = "scope") -> Scope:
    """Read `proj-a`, `project:proj-a`, `user:123`, `type:backup` or `global`.

    Raises `FieldError` for an unknown kind or odd characters.
    """
    if text == "global":
        return GLOBAL
    kind, colon, name = text.partition(":")
    if not colon:
        return Scope(ScopeKind.PROJECT, check_name(field, text))
    kinds = [k.value for k in ScopeKind if k is not ScopeKind.GLOBAL]
    if kind not in kinds:
        raise FieldError(field, f"unknown kind of scope {kind[:40]!r}", f"{', '.join(kinds)} or global")
    return Scope(ScopeKind(kind), check_name(field, name))


def parse_label(label: str) -> Scope:
    """The inverse of `Scope.label`. Raises `FieldError`."""
    kind, _, name = label.partition("-")
    if label == "global":
        return GLOBAL
    if kind not in {k.value for k in ScopeKind} or not name:
        raise FieldError("scope", f"{label[:80]!r} is not a scope", "kind-name or global")
    return Scope(ScopeKind(kind), check_name("scope", name))


def infer_scope(dag: DagId, project_ids: Iterable[str], publisher: str, isolation: ScopeKind) -> Scope:
    """The scope of a run that names none: tasks' PROJECT_ID, the DAG's id, the publisher, the default."""
    projects = sorted(set(project_ids))
    if len(projects) == 1:
        return Scope(ScopeKind.PROJECT, check_name("env.PROJECT_ID", projects[0]))
    if found := _PROJECT.match(dag):
        return Scope(ScopeKind.PROJECT, found[1])
    if found := _USER.match(dag):
        return Scope(ScopeKind.USER, found[1])
    words = re.split(r"[-_.]", dag.lower())
    for word in words:
        if word in DAG_TYPES:
            return Scope(ScopeKind.TYPE, word)
    local = re.sub(r"[^A-Za-z0-9._-]", "-", publisher.lstrip("@").partition(":")[0])[:64].strip("-._")
    if isolation is ScopeKind.GLOBAL:
        return GLOBAL
    if isolation is ScopeKind.TYPE:
        return Scope(ScopeKind.TYPE, words[0] or dag)
    if local:
        return Scope(ScopeKind.USER, local)
    return Scope(ScopeKind.PROJECT, dag)


def claim_key(dag: DagId, scope: Scope, *, exclusive: bool, node: NodeId | None = None) -> ClaimKey:
    """The one key that claims a run: the scope where it has one worker in the cluster, else (DAG, scope).

    With target=all each node has a key of its own. Names hold no "/", so keys can't collide.
    """
    if exclusive or scope.kind is ScopeKind.GLOBAL:
        return ClaimKey(scope.label)
    return ClaimKey("/".join([dag, scope.label, *([node] if node else [])]))


def lock_key(name: str) -> ClaimKey:
    """The key of a named lock: one in the whole room, whichever DAG, scope and node asks for it."""
    return ClaimKey(LOCK_PREFIX + name)


def is_lock(key: ClaimKey) -> bool:
    """Whether the key is a named lock's, and no run's own."""
    return key.startswith(LOCK_PREFIX)


def lock_name(key: ClaimKey) -> str:
    """What people call it."""
    return key.removeprefix(LOCK_PREFIX)


def slots_of(key: ClaimKey, allowed: int) -> int:
    """How many runs may hold the key at once: what their DAG allows, but of locks and of a scope only one."""
    return allowed if "/" in key else 1
