"""Judges a storm: `python checker.py FOLDER`. Imports nothing of cisbot; exit code 1 if a rule was broken.

It reads what the tasks wrote (`record.jsonl`), what the sink took (`sink/journal.jsonl`), the room in the
order of its stream (`room.jsonl`, by `follow.py`), which processes were stopped when (`stops.jsonl`), and
what was promised (`promise.json`: the lease, the charter's bounds, of each DAG its tasks and what happens to
a lost run). An execution is what one node ran of one run at one epoch; it lasted at least from its first line
to its last.

overlap    two executions of a key at the same time. Where worker and tasks of the older one were stopped past
           their lease, it is no broken rule, but named, with its length: only the fence protects there.
twice      an epoch ran on two nodes or for two runs, or a task began twice at one epoch.
void       what ran had no claim: by a fold of the checker's own, no such take was accepted in the room.
loss       a published run has no outcome, or succeeded without all its tasks at an end; or it failed, though
           none of our tasks does, and its worker was not stopped for as long as its node waits for one.
duplicate  a run ran again though its outcome was in the room before the claim, or two of its outcomes were
           accepted; or a run that asks before it goes on went on unasked.
stale      the sink took a fence below one that it had taken, or one fence from two.
blind      the evidence is not whole: nothing can be judged.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
STUCK_S = 15.0  # so long a worker may be silent before its node kills it, and its run fails
YES = ("✅", "👍", "yes")


@dataclass(frozen=True)
class Finding:
    """A broken rule, or (`broken` false) something that is named all the same."""

    rule: str
    text: str
    broken: bool = True


@dataclass
class Evidence:
    """All that is judged."""

    promise: Line
    record: list[Line] = field(default_factory=list)
    taken: list[Line] = field(default_factory=list)
    room: list[Line] = field(default_factory=list)
    stops: list[Line] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass
class Execution:
    """What one node ran of one run at one epoch."""

    key: str
    run: str
    epoch: int
    node: str
    lines: list[Line] = field(default_factory=list)

    @property
    def first(self) -> int:
        """When it began, ns."""
        return min(int(line["at_ns"]) for line in self.lines)

    @property
    def last(self) -> int:
        """When it certainly still lived, ns."""
        return max(int(line["at_ns"]) for line in self.lines)

    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{self.run} at epoch {self.epoch} of {self.key} on {self.node}"


@dataclass
class Head:
    """A key as the stream leaves it: slot -> (account, incarnation, epoch)."""

    epoch: int = 0
    after: str | None = None
    holders: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    takes: int = 0
    touched: bool = False


@dataclass
class Story:
    """What the room says: accepted takes, outcomes (place, epoch, outcome, accepted), publications, yeses."""

    takes: dict[tuple[str, int], tuple[int, str, str]] = field(default_factory=dict)
    ends: dict[str, list[tuple[int, int, str, bool]]] = field(default_factory=lambda: defaultdict(list))
    published: dict[str, str] = field(default_factory=dict)
    yeses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    void: int = 0


# -- the room ---------------------------------------------------------------------------------------


def read_room(evidence: Evidence) -> Story:
    """Fold the room's stream: which takes and releases count is told by their order alone."""
    story, heads, promise = Story(), defaultdict[str, Head](Head), evidence.promise
    asks: dict[str, str] = {}
    for place, event in enumerate(evidence.room):
        content, kind = event.get("content", {}), str(event.get("type", ""))
        match kind:
            case "io.cisbot.lock" if content.get("action") == "take":
                _take(place, event, heads[event["state_key"]], promise, story)
            case "io.cisbot.lock" if content.get("action") == "release":
                _release(place, event, heads[event["state_key"]], story)
            case "io.cisbot.heartbeat":
                for renewal in content.get("renews", []):
                    head = heads[renewal["key"]]
                    if (event["sender"], content["incarnation"], renewal["epoch"]) in head.holders.values():
                        head.after = event["event_id"]
            case "io.cisbot.probe":
                for key in content.get("keys", []):
                    if heads[key].touched:
                        heads[key].after = event["event_id"]
            case "io.cisbot.end":
                for head in heads.values():
                    _free(head, event, lambda h, e=event: h[:2] == (e["sender"], e["content"]["incarnation"]))
            case "m.room.message" | "m.reaction":
                _talk(place, event, promise, story, asks)
            case _:
                pass
    return story


def _take(place: int, event: Line, head: Head, promise: Line, story: Story) -> None:
    content, step = event["content"], int(promise["epoch_step_max"])
    epoch, fresh = int(content["epoch"]), bool(content.get("fresh"))
    most = max(head.epoch + step, step * (head.takes + 1) if fresh else 0)
    head.touched, head.takes = True, head.takes + 1
    good = content.get("after") == head.after and head.epoch < epoch <= most
    if not good or content["lease_s"] > promise["lease_s_max"]:
        story.void += 1
        return
    if fresh:
        head.holders.clear()
    head.holders[int(content.get("slot", 0))] = (event["sender"], content["incarnation"], epoch)
    head.epoch, head.after = epoch, event["event_id"]
    story.takes[event["state_key"], epoch] = (place, content["run"], content["node"])


def _release(place: int, event: Line, head: Head, story: Story) -> None:
    content = event["content"]
    whose = (event["sender"], content["incarnation"], int(content["epoch"]))
    head.touched = True
    good = _free(head, event, lambda holder: holder == whose)
    if content.get("outcome") not in (None, "lost"):
        story.ends[content["run"]].append((place, whose[2], content["outcome"], good))


def _free(head: Head, event: Line, matches: Any) -> bool:
    over = [slot for slot, holder in head.holders.items() if matches(holder)]
    for slot in over:
        del head.holders[slot]
    if over:
        head.after = event["event_id"]
    return bool(over)


def _talk(place: int, event: Line, promise: Line, story: Story, asks: dict[str, str]) -> None:
    """People's publications and yeses; nodes' questions, which a yes may mean."""
    content, person = event.get("content", {}), event["sender"] in promise["people"]
    words = str(content.get("body", "")).split()
    block, relates = content.get("io.cisbot"), content.get("m.relates_to", {})
    if person and words[:2] == ["!dag", "publish"]:
        story.published[event["event_id"]] = words[2]
    elif person and words[:2] == ["!dag", "approve"]:
        story.yeses[words[2]].append(place)
    elif person and relates.get("key") in YES:
        story.yeses[asks.get(relates["event_id"], relates["event_id"])].append(place)
    elif not person and isinstance(block, Mapping) and block.get("kind") == "ask":
        asks[event["event_id"]] = str(block.get("run"))


# -- the rules --------------------------------------------------------------------------------------


def judge(evidence: Evidence) -> list[Finding]:
    """Everything that is found."""
    if evidence.missing:
        return [Finding("blind", f"{len(evidence.missing)} events of the room were not followed")]
    story, executions = read_room(evidence), read_record(evidence.record)
    return [
        *overlaps(executions, evidence),
        *twice(executions, evidence.record),
        *voids(executions, story),
        *losses(executions, story, evidence),
        *duplicates(executions, story, evidence.promise),
        *stale(evidence.taken),
    ]


def read_record(record: Iterable[Line]) -> list[Execution]:
    """The executions, by their beginning."""
    found: dict[tuple[str, str, int, str], Execution] = {}
    for line in record:
        mark = (str(line["key"]), str(line["run"]), int(line["epoch"]), str(line["node"]))
        found.setdefault(mark, Execution(*mark)).lines.append(line)
    return sorted(found.values(), key=lambda execution: execution.first)


def overlaps(executions: list[Execution], evidence: Evidence) -> Iterable[Finding]:
    """Two executions of a key at the same time."""
    by_key: dict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        for older in by_key[execution.key]:
            if older.last <= execution.first:
                continue
            thawed = _frozen_past(older, execution.first, evidence)
            if thawed is None:
                length = min(older.last, execution.last) - execution.first
                yield Finding("overlap", f"{length / 1e6:.1f} ms: {older} and {execution}")
            else:
                length = older.last - max(execution.first, thawed)
                text = f"unfenced, {length / 1e6:.1f} ms: {older}, stopped past its lease and continued,"
                yield Finding("overlap", f"{text} and {execution}", broken=False)
        by_key[execution.key].append(execution)


def _frozen_past(older: Execution, moment: int, evidence: Evidence) -> int | None:
    """When what ran after `moment` was continued, if it and its worker were stopped at their lease's end.

    Nobody takes over within `band` of the holder's deadline, so who was continued less than that after the
    newer one began had been stopped past its lease.
    """
    lease = float(evidence.promise["lease_s"])
    band = int((0.03 * lease + min(0.5, lease / 10)) * 1e9)
    late = [line for line in older.lines if int(line["at_ns"]) > moment]
    thawed: list[int] = []
    for pid in {int(line[who]) for line in late for who in ("pid", "worker")}:
        stops = [
            int(stop["until_ns"])
            for stop in evidence.stops
            if pid in stop["pids"] and int(stop["from_ns"]) < moment <= int(stop["until_ns"]) + band
        ]
        if not stops:
            return None
        thawed.append(min(stops))
    return min(thawed)


def twice(executions: list[Execution], record: Iterable[Line]) -> Iterable[Finding]:
    """One epoch, two executions; one epoch, a task that began twice."""
    seen: dict[tuple[str, int], Execution] = {}
    for execution in executions:
        other = seen.setdefault((execution.key, execution.epoch), execution)
        if other is not execution:
            yield Finding("twice", f"{other} and {execution}")
    begun: dict[tuple[str, str, int, str], int] = defaultdict(int)
    for line in record:
        if line["what"] == "start":
            begun[line["run"], line["key"], line["epoch"], line["task"]] += 1
    for (run, key, epoch, task), count in begun.items():
        if count > 1:
            yield Finding("twice", f"{task} of {run} began {count} times at epoch {epoch} of {key}")


def voids(executions: list[Execution], story: Story) -> Iterable[Finding]:
    """What ran without an accepted claim."""
    for execution in executions:
        claim = story.takes.get((execution.key, execution.epoch))
        if claim is None or claim[1:] != (execution.run, execution.node):
            holder = f"it is {claim[1]} on {claim[2]}" if claim else "nobody's"
            yield Finding("void", f"{execution}: the room's claim of that epoch is {holder}")


def losses(executions: list[Execution], story: Story, evidence: Evidence) -> Iterable[Finding]:
    """Runs that did not come to a good end."""
    of_run: dict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        of_run[execution.run].append(execution)
    for run, dag in story.published.items():
        policy, ends = evidence.promise["dags"][dag], story.ends.get(run, [])
        done = {(line["task"], e.epoch) for e in of_run[run] for line in e.lines if line["what"] == "end"}
        if not ends:
            yield Finding("loss", f"{run} ({dag}) has no outcome")
        for _, epoch, outcome, _ in ends:
            if outcome == "succeeded":
                good = [epoch] if policy["on_lost"] == "rerun" else range(epoch + 1)
                for task in policy["tasks"]:
                    if not any((task, e) in done for e in good):
                        yield Finding("loss", f"{run} ({dag}) succeeded at {epoch}, but {task} never ended")
            else:
                lines = [line for e in of_run[run] if e.epoch == epoch for line in e.lines]
                nodes = {t[2] for (_, at), t in story.takes.items() if (at, t[1]) == (epoch, run)}
                stuck = any(_stuck(stop, lines, nodes) for stop in evidence.stops)
                text = f"{run} ({dag}) {outcome} at epoch {epoch}"
                why = ": its worker was stopped, and its node gave it up" if stuck else ""
                yield Finding("loss", text + why, broken=not stuck)


def _stuck(stop: Line, lines: list[Line], nodes: set[str]) -> bool:
    """Whether the worker was stopped so long; where nothing had begun yet, one of that node's."""
    whose = {int(line["worker"]) for line in lines} & set(stop["pids"])
    given = not lines and stop["pids"] and stop["node"] in nodes
    return bool(whose or given) and (int(stop["until_ns"]) - int(stop["from_ns"])) / 1e9 >= STUCK_S


def duplicates(executions: list[Execution], story: Story, promise: Line) -> Iterable[Finding]:
    """Runs that ran more often than their policy says."""
    count: dict[str, int] = defaultdict(int)
    for execution in executions:
        run = execution.run
        count[run] += 1
        place = story.takes.get((execution.key, execution.epoch), (-1, "", ""))[0]
        before = [end for end in story.ends.get(run, []) if end[0] < place]
        if before:
            yield Finding(
                "duplicate", f"{execution}, though it {before[0][2]} at epoch {before[0][1]} before that"
            )
        policy = promise["dags"].get(story.published.get(run, ""))
        if policy is None:
            yield Finding("duplicate", f"{execution}: nobody published that")
        elif policy["on_lost"] == "ask":
            yeses = sum(1 for at in story.yeses.get(run, []) if at < place)
            if count[run] > 1 + yeses:
                yield Finding("duplicate", f"{execution}: execution {count[run]} after {yeses} times yes")
    for run, ends in story.ends.items():
        good = [epoch for _, epoch, _, accepted in ends if accepted]
        if len(good) > 1:
            yield Finding("duplicate", f"{run} has outcomes at the epochs {good}")


def stale(taken: Iterable[Line]) -> Iterable[Finding]:
    """What the sink should have refused."""
    highest: dict[str, Line] = {}
    for line in taken:
        top = highest.get(line["key"], line)
        if line["fence"] < top["fence"]:
            what = f"took {line['fence']} of {line['run']} after {top['fence']}"
            yield Finding("stale", f"{line['key']}: {what}")
        elif line["fence"] == top["fence"] and (line["run"], line["node"]) != (top["run"], top["node"]):
            yield Finding("stale", f"{line['key']}: {line['fence']} from {line['node']} and {top['node']}")
        if line["fence"] >= top["fence"]:
            highest[line["key"]] = line


# -- from the outside -------------------------------------------------------------------------------


def load(folder: Path) -> Evidence:
    """Read all files. What is not there is empty, but for the promise and the follower's last word."""

    def lines(name: str) -> list[Line]:
        path = folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    promise = json.loads((folder / "promise.json").read_text())
    missing = json.loads((folder / "followed.json").read_text())["missing"]
    record, taken = lines("record.jsonl"), lines("sink/journal.jsonl")
    return Evidence(promise, record, taken, lines("room.jsonl"), lines("stops.jsonl"), missing)


def figures(evidence: Evidence) -> dict[str, object]:
    """What there was to judge."""
    story, executions = read_room(evidence), read_record(evidence.record)
    kinds: dict[str, int] = defaultdict(int)
    for event in evidence.room:
        kinds[str(event["type"]).removeprefix("io.cisbot.").removeprefix("m.room.")] += 1
    return {
        "runs": len(story.published),
        "executions": len(executions),
        "taken over": len(executions) - len({execution.run for execution in executions}),
        "claims accepted": len(story.takes),
        "claims void": story.void,
        "writes taken by the sink": len(evidence.taken),
        "writes refused by the sink": sum(1 for line in evidence.record if line["what"] == "refused"),
        "events": dict(sorted(kinds.items())),
    }


def main(folder: Path) -> int:
    """Print all findings and figures; 1 if a rule was broken."""
    evidence = load(folder)
    findings = judge(evidence)
    for finding in findings:
        print(f"{'BROKEN ' if finding.broken else ''}{finding.rule}: {finding.text}")
    print(json.dumps(figures(evidence)))
    broken = sum(1 for finding in findings if finding.broken)
    print("no rule was broken" if not broken else f"{broken} broken rules")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
