"""A skill: a function that a DAG's task calls by the name of its entry point.

Its arguments are what the task has under `with`; what it prints is the task's log, what it returns the
task's outputs, what it raises the task's error. It runs in a process of its own, and may be `async`.
"""


def hello(name: str, times: int = 1) -> dict[str, str]:
    """Say hello to somebody, `times` times."""
    if times < 1:
        raise ValueError(f"times: {times} can't be used here; expected at least 1")
    for _ in range(times):
        print(f"Hello, {name}!")  # noqa: T201 - the task's log
    return {"greeting": f"Hello, {name}!"}
