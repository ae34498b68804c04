"""A report for people, in short lines, and as data. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter

from cisbot.core.audit.found import Finding, Hold, HoldEnd, Report, VoidClaim
from cisbot.core.chat.render import clean, seconds
from cisbot.core.ids import RunId, run_event, short_id

YEAR_MAX_MS = 253_402_300_799_000
SCHEMA = 1


def only(report: Report, *, key: str | None, run: str | None) -> Report:
    """What concerns the key, and the run (its short or its full id, or the event that published it)."""

    def shown(one: Hold | VoidClaim | Finding) -> bool:
        return (key is None or one.key == key) and (run is None or run in _names(one.run))

    return replace(
        report,
        holds=tuple(filter(shown, report.holds)),
        voids=tuple(filter(shown, report.voids)),
        breaches=tuple(filter(shown, report.breaches)),
        remarks=tuple(filter(shown, report.remarks)),
    )


def _names(run: RunId | None) -> tuple[str, ...]:
    return () if run is None else (run, run_event(run), short_id(run))


def as_json(report: Report, room: str, *, consistent: bool) -> str:
    """One JSON object (docs/guide.md). `consistent`: the whole room, not only what is shown."""
    content = {"schema": SCHEMA, "room": room, "consistent": consistent, **asdict(report)}
    return json.dumps(content, indent=1)


def as_text(report: Report, room: str) -> str:
    """The report for a terminal."""
    span = f"{_moment(report.from_ms)} to {_moment(report.as_of_ms)} UTC"
    lines = [f"{clean(room)}: {report.events} events, {span}", *_claims(report)]
    lines += _findings("INCONSISTENT", report.breaches)
    lines += _findings("note", report.remarks)
    return "\n".join([*lines, "", summary(report)])


def summary(report: Report) -> str:
    """The last line."""
    keys = len({hold.key for hold in report.holds})
    found = _many(len(report.breaches), "inconsistency", "inconsistencies")
    counts = [
        _many(len(report.holds), "claim"), _many(keys, "key"), _many(len(report.voids), "void request"),
        found if report.breaches else "no inconsistency", _many(len(report.remarks), "note"),
    ]  # fmt: skip
    return ", ".join(counts)


def _claims(report: Report) -> Iterable[str]:
    """Every key's holds and void requests, in time."""
    rows = [
        *((hold.key, hold.since_ms, _hold(hold, report.as_of_ms)) for hold in report.holds),
        *((void.key, void.ts_ms, _void(void)) for void in report.voids),
    ]
    rows.sort(key=lambda row: row[:2])
    for key, group in groupby(rows, key=itemgetter(0)):
        table = [["  epoch", "node", "run", "from", "held", "end"], *(cells for _, _, cells in group)]
        yield from ("", clean(key), *_columns(table))


def _hold(hold: Hold, as_of_ms: int) -> list[str]:
    still_ms = as_of_ms if hold.end is HoldEnd.HELD else hold.last_sign_ms
    until_ms = hold.until_ms if hold.until_ms is not None else still_ms
    end = str(hold.end)
    if hold.outcome is not None:
        end += f", {hold.outcome}"
    elif hold.end is HoldEnd.RELEASED:
        end = "given back"
    if hold.lapsed_ms and hold.end is not HoldEnd.RELEASED:
        end += f", no lease for {seconds(hold.lapsed_ms / 1000)}"
    slot = f" slot {hold.slot}" if hold.slot else ""
    return [
        f"{hold.epoch:7}{slot}", clean(hold.node), short_id(hold.run), _moment(hold.since_ms),
        seconds(max(0, until_ms - hold.since_ms) / 1000), end,
    ]  # fmt: skip


def _void(void: VoidClaim) -> list[str]:
    return [
        f"{void.epoch:7}", clean(void.node), short_id(void.run), _moment(void.ts_ms), "–",
        f"void {void.action}: {void.why}",
    ]  # fmt: skip


def _columns(table: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _findings(mark: str, found: Iterable[Finding]) -> Iterable[str]:
    for one in found:
        yield ""
        yield f"{mark} {one.kind}" + (f" ({clean(one.key)})" if one.key else "")
        yield f"    {_moment(one.ts_ms)}  {clean(one.what, 400)}"
        if one.event is not None:
            yield f"    {clean(one.event)} of {clean(one.sender or '')}"


def _moment(ts_ms: int) -> str:
    moment = datetime.fromtimestamp(min(max(0, ts_ms), YEAR_MAX_MS) / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"
