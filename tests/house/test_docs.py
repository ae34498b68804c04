"""The docs name what is there: links lead somewhere, every event and field of the wire is described."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cisbot.core.audit import found
from cisbot.core.room import wire

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "homeserver" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
GUIDE = (ROOT / "docs" / "guide.md").read_text()
CONTENTS = [
    model
    for _, model in inspect.getmembers(wire, inspect.isclass)
    if issubclass(model, wire.Wire) and model is not wire.Wire
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:cisbot|plugins|homeserver|tests|docs)/[A-Za-z0-9_/.]*)`", page.read_text())
    for name in named:
        made_by_running = name.startswith(("homeserver/.", "homeserver/data"))
        assert made_by_running or (ROOT / name).exists(), name


@pytest.mark.parametrize("content", CONTENTS, ids=lambda model: model.__name__)
def test_every_field_is_described(content: type[wire.Wire]) -> None:
    for field in content.model_fields:
        assert f"`{field}`" in PROTOCOL, field


@pytest.mark.parametrize("content", [found.Report, found.Hold, found.VoidClaim, found.Finding])
def test_every_field_of_an_audit_is_described(content: type[object]) -> None:
    for field in inspect.signature(content).parameters:
        assert f"`{field}`" in GUIDE, field


@pytest.mark.parametrize("kind", [*found.Breach, *found.Remark, *found.HoldEnd])
def test_every_kind_that_an_audit_names_is_described(kind: str) -> None:
    assert f"`{kind}`" in GUIDE


def test_every_event_type_is_described() -> None:
    for kind in (*wire.STATE_TYPES, *wire.TIMELINE_TYPES):
        assert f"`{kind}`" in PROTOCOL, kind
