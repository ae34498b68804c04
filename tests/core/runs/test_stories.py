"""Stories: asked for once, again only after a pause, and not all at once."""

from __future__ import annotations

from cisbot.core.ids import RunId
from cisbot.core.runs.stories import AGAIN_S, STORIES_MAX, Stories

RUN = RunId("$run")


def test_a_story_that_cannot_be_read_is_asked_for_again_after_a_pause() -> None:
    stories = Stories()
    assert stories.to_ask([RUN, RUN], 100.0) == [RUN]
    assert stories.to_ask([RUN], 100.0) == []
    assert stories.deadline() is None
    stories.answered(RUN, good=False, now=101.0)
    assert stories.unread({RUN}) == {RUN}
    assert stories.to_ask([RUN], 101.0) == []
    assert stories.deadline() == 101.0 + AGAIN_S
    stories.passed(101.0 + AGAIN_S)
    assert stories.deadline() is None
    assert stories.to_ask([RUN], 101.0 + AGAIN_S) == [RUN]
    stories.answered(RUN, good=True, now=140.0)
    assert stories.unread({RUN}) == set()
    stories.missed(RUN)
    assert stories.unread({RUN}) == {RUN}


def test_no_more_than_so_many_at_once() -> None:
    stories = Stories()
    runs = [RunId(f"$run{n}") for n in range(2 * STORIES_MAX)]
    asked = stories.to_ask(runs, 0.0)
    assert len(asked) == STORIES_MAX
    stories.answered(asked[0], good=True, now=1.0)
    assert stories.to_ask(runs[STORIES_MAX:], 1.0) == [runs[STORIES_MAX]]
    stories.forget(runs)
    assert len(stories.to_ask(runs, 2.0)) == STORIES_MAX
