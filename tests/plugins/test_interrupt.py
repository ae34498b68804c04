"""A signal in the middle of a task's step: the step is finished, and the task lives on in maubot's end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from plugins.interrupt import interrupt_between_steps


@pytest.fixture
def as_mautrix_does() -> Iterator[None]:
    """Signals raise KeyboardInterrupt anywhere, as mautrix sets them."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("as_mautrix_does")
def test_a_signal_spares_the_step_and_the_task() -> None:
    told: list[str] = []
    loop = asyncio.new_event_loop()
    end = loop.create_future()

    async def node() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        told.append("the step is finished")
        await end
        told.append("its claims are given back")

    async def life() -> None:
        interrupt_between_steps(loop)
        await loop.create_task(node())

    living = loop.create_task(life())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(living)
    assert told == ["the step is finished"]
    end.set_result(None)
    loop.run_until_complete(living)
    assert told[-1] == "its claims are given back"
    loop.close()


@pytest.mark.usefixtures("as_mautrix_does")
def test_another_handler_is_left_alone() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loop = asyncio.new_event_loop()
    interrupt_between_steps(loop)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    loop.close()
