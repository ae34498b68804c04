"""`cisbot check`: can this node work in its room? Prints every finding, and how to mend what is missing.

Exit code 0: all is there; 1: something is missing; 2: the settings can't be read.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from cisbot.errors import CisbotError
from cisbot.matrix.check import all_well, check_room
from cisbot.node.config import load
from cisbot.node.definitions import DagFiles

DESCRIPTION = "Log in, look at the room, and say what is missing for this node to work."


def add_arguments(sub: argparse._SubParsersAction[Any]) -> None:
    """Add the sub-command; its `run` takes the parsed arguments and returns the exit code."""
    parser = sub.add_parser("check", help="can this node work in its room?", description=DESCRIPTION)
    parser.add_argument("--config", required=True, type=Path, help="the node's TOML file")
    parser.set_defaults(run=lambda args: check(args.config))


def check(config_path: Path) -> int:
    """Check the node of these settings; print findings; return the exit code."""
    try:
        loaded = load(config_path)
    except CisbotError as error:
        print(error, file=sys.stderr)
        return 2
    for warning in loaded.warnings:
        print(f"warning  {warning}")
    settings = loaded.settings
    _show_dags(settings.node.dags)
    delay_s = settings.coordinator.armed_s if settings.node.execute else 0.0
    checked = check_room(settings.matrix, settings.node.data_dir, _say, end_delay_s=delay_s)
    findings = asyncio.run(checked)
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.what}")
        if finding.how_to_mend:
            print(f"         {finding.how_to_mend}")
    if all_well(findings):
        print("This node can work.")
        return 0
    return 1


def _show_dags(folders: tuple[Path, ...]) -> None:
    read = DagFiles(folders).changed()
    assert read is not None, "the first time it reads always"
    for problem in read.problems:
        print(f"warning  node.dags: {problem}")
    for folder in (folder for folder in folders if not folder.exists()):
        print(f"         mkdir -p {folder}")
    print(f"ok       {len(read.dags)} valid DAG{'' if len(read.dags) == 1 else 's'} in its folders")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
