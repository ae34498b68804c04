"""The settings of a node in maubot: the instance's config, and the account of its client. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cisbot.core.dags.faults import describe, explain
from cisbot.core.ids import nearest
from cisbot.core.settings import Settings
from cisbot.errors import CisbotError, FieldError

SECTIONS = ("room", "node", "coordinator", "worker", "policy")


@dataclass(frozen=True, slots=True)
class Account:
    """What maubot's client lends."""

    homeserver: str
    user_id: str
    access_token: str = field(repr=False)


def check_sections(written: object) -> None:
    """Raises `FieldError` unless this is a mapping of known sections."""
    if not isinstance(written, Mapping):
        raise FieldError("the config", f"is {describe(written)}", "a mapping of sections")
    for key in written:
        if key not in SECTIONS:
            hint = nearest(str(key), SECTIONS)
            raise FieldError(str(key), "unknown section", f"one of: {', '.join(SECTIONS)}", hint)


def settings_of(written: Mapping[str, object], account: Account, folder: Path) -> Settings:
    """The node's settings; relative paths start at `folder`. Raises `CisbotError` with all that is wrong."""
    sections = {key: value for key, value in written.items() if key != "room"}
    sections["matrix"] = {
        "homeserver": account.homeserver,
        "user_id": account.user_id,
        "access_token": account.access_token,
        "room": written.get("room"),
    }
    try:
        settings = Settings.model_validate(sections)
    except ValidationError as error:
        said = [fault for _, fault in explain(error, Settings)]
        for fault in said:
            fault.field = fault.field.removeprefix("matrix.")
        raise CisbotError("\n".join(fault.text() for fault in said)) from None
    paths = {
        "data_dir": folder / settings.node.data_dir.expanduser(),
        "dags": tuple(folder / one.expanduser() for one in settings.node.dags),
    }
    return settings.model_copy(update={"node": settings.node.model_copy(update=paths)})
