"""The messages that cisbot sends: contents with thread, mentions and the structured block."""

from __future__ import annotations

from cisbot.core.effects import Priority, Send
from cisbot.core.frozen import dataclass
from cisbot.core.ids import EventId, UserId
from cisbot.core.room.events import JsonMap
from cisbot.core.room.wire import BLOCK


@dataclass(frozen=True, slots=True)
class Post:
    """One message. `notify` makes it an ordinary text, which clients announce; else it is a notice."""

    txn: str
    text: str
    html: str | None
    thread: EventId
    block: JsonMap
    mentions: tuple[UserId, ...] = ()
    notify: bool = False
    priority: Priority = Priority.CHAT
    reply_to: EventId | None = None


def send_of(post: Post) -> Send:
    """The send of a new message in a thread."""
    content = _body(post)
    content["m.relates_to"] = {
        "rel_type": "m.thread",
        "event_id": post.thread,
        "is_falling_back": post.reply_to is None,
        "m.in_reply_to": {"event_id": post.reply_to or post.thread},
    }
    return Send(post.txn, "m.room.message", content, post.priority, durable=True)


def edit_of(post: Post, original: EventId, mark: str) -> Send:
    """The send of an edit; an unsent older edit of the same `mark` is replaced by it."""
    fresh = _body(post)
    content: JsonMap = {name: value for name, value in fresh.items() if name != BLOCK}
    content["body"] = f"* {post.text}"
    content["m.new_content"] = fresh
    content["m.relates_to"] = {"rel_type": "m.replace", "event_id": original}
    return Send(post.txn, "m.room.message", content, Priority.EDIT, coalesce=mark)


def _body(post: Post) -> JsonMap:
    content: JsonMap = {
        "msgtype": "m.text" if post.notify else "m.notice",
        "body": post.text,
        "m.mentions": {"user_ids": list(post.mentions)} if post.mentions else {},
        BLOCK: post.block,
    }
    if post.html is not None:
        content["format"] = "org.matrix.custom.html"
        content["formatted_body"] = post.html
    return content
