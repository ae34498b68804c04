"""`make demo`: the cluster, the steps, the room's timeline as it happens; `--once` ends by itself."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

from homeserver.demo.cluster import Cluster
from homeserver.demo.person import Event, Person
from homeserver.demo.steps import Steps, Wrong

QUIET = ("m.room.member",)


def say(text: str) -> None:
    """One line of the demo's own."""
    print(f"\n── {text}", flush=True)


def show(event: Event) -> None:
    """One event of the timeline, readable."""
    content = event.get("content")
    kind, sender = str(event.get("type")), str(event.get("sender")).partition(":")[0]
    if not isinstance(content, dict) or kind in QUIET:
        return
    at = time.strftime("%H:%M:%S")
    name = kind.removeprefix("io.cisbot.").removeprefix("m.room.")
    if kind == "m.room.message":
        new = content.get("m.new_content", content)
        body = str(new.get("body", "") if isinstance(new, dict) else "").replace("\n", " ⏎ ")
        text = ("(edit) " if new is not content else "") + body[:150]
    elif kind == "m.reaction":
        relates = content.get("m.relates_to")
        text = str(relates.get("key") if isinstance(relates, dict) else "")
    else:
        keys = ("action", "epoch", "outcome", "renews", "keys", "id", "version", "value")
        text = " ".join(f"{k}={content[k]}" for k in keys if content.get(k) is not None)
        text = f"{event.get('state_key', '')} {text}"[:150]
    print(f"{at}  {sender:<10} {name:<10} {text}", flush=True)


def main() -> int:
    """0: every step came out as it should."""
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--once", action="store_true", help="end by itself")
    args.add_argument("--root", type=Path, default=Path("demo-data"), help="where everything is kept")
    given = args.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    cluster = Cluster(given.root.absolute())
    began = time.monotonic()
    try:
        say("starting Synapse, the room and the nodes")
        cluster.start()
        person = Person(cluster.synapse.base_url, cluster.operator, cluster.room, show)
        cluster.start_nodes()
        for name in cluster.passwords.keys() - {"operator"}:
            person.wait(f"{name} to join", partial(is_record, name))
        failed = run_steps(Steps(cluster, person, say))
        say(f"done in {time.monotonic() - began:.0f} s")
        if not given.once and not failed:
            summary(cluster)
            stop.wait()
        return 1 if failed else 0
    except KeyboardInterrupt:
        return 130
    finally:
        say("stopping everything")
        cluster.close()


def is_record(node: str, event: Event) -> bool:
    """Whether the node says that it is there."""
    content = event.get("content")
    return event.get("type") == "io.cisbot.node" and isinstance(content, dict) and content.get("id") == node


def run_steps(steps: Steps) -> bool:
    """Run all steps; say whether one failed."""
    failed = False
    for step in steps.all():
        say(f"{step.__name__}: {step.__doc__}")
        began = time.monotonic()
        try:
            step()
        except (Wrong, TimeoutError, OSError) as error:
            failed = True
            say(f"WRONG  {step.__name__}: {error}")
        else:
            say(f"as it should be ({time.monotonic() - began:.1f} s)")
    say("what ran where")
    for name, nodes, events in steps.where:
        print(f"  {name:<32} {nodes:<16} {events}")
    return failed


def summary(cluster: Cluster) -> None:
    """How to look for oneself, while it goes on."""
    say("the cluster goes on; Ctrl-C stops it. Look for yourself, with any Matrix client on this machine:")
    print(f"  homeserver {cluster.synapse.base_url}\n  user       {cluster.operator.user_id}")
    print(f"  password   {cluster.passwords['operator']}\n  room       #tasks:{cluster.synapse.server_name}")
    print("  say        !dag help, !dag list, !dag publish backup_daily target=node-1 scope=proj-a")
    print(
        f"or in another terminal:\n  .venv/bin/cisbot status --config {cluster.config('node-1')}\n"
        f"  .venv/bin/cisbot audit --config {cluster.config('node-1')}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
