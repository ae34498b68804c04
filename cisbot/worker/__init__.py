"""The worker: one process per scope and node that runs tasks and reports them, and nothing more.

States: waiting for `Hello`, serving, draining. Authority: it alone starts and kills its tasks, and keeps
their deadlines by itself, for the node may be stopped or dead. Failures: when its stdin ends, its stdout
breaks, or its parent dies, it kills all tasks (TERM, grace, KILL) and exits. It imports nothing but the
standard library and `cisbot.core.frames`, all of it at start: its file may be replaced under it.
"""
