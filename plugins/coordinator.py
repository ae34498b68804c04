"""The coordinator inside maubot: an instance is a node. maubot lends the account, its sync and the log.

A node that can't go on says why in the instance's log and leaves the instance stopped; maubot and its other
plugins go on. It is started again by hand, by a change of its config, or by the next reload.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from maubot import Plugin
from maubot.instance import PluginInstance
from mautrix.client import InternalEventType
from mautrix.util.config import BaseProxyConfig, ConfigUpdateHelper
from ruamel.yaml import YAMLError
from typing_extensions import override

from cisbot.core.ids import RoomId, UserId
from cisbot.core.settings import Settings
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.follow import SyncTap
from cisbot.matrix.http import Api, RateLimited, Unreachable
from cisbot.matrix.waiting import Backoff, pause
from cisbot.node.build import GOODBYE_S, Node
from cisbot.supervisor.pool import CLOSE_S
from cisbot.supervisor.process import copy_code

from .interrupt import interrupt_between_steps
from .settings import SECTIONS, Account, check_sections, settings_of

SLACK_S = 10.0  # for the end of a node beyond its known waits


class Config(BaseProxyConfig):
    """The instance's config, in the sections of `base-config.yaml`."""

    @override
    def do_update(self, helper: ConfigUpdateHelper) -> None:
        for section in SECTIONS:
            helper.copy(section)

    def written(self) -> dict[str, object]:
        """What the operator wrote, completed with the defaults. Raises `CisbotError`."""
        try:
            self.load()
        except YAMLError as error:
            raise FieldError("the config", f"is not YAML: {error}") from error
        check_sections(self._data)
        self.update()
        return cast("dict[str, object]", json.loads(json.dumps(self._data, default=str)))


class CisBot(Plugin):  # type: ignore[misc]  # types are checked without maubot
    """One instance: a node as long as the instance is started."""

    config: Config
    _life: asyncio.Task[None] | None = None
    _node: Node | None = None
    _farewell: asyncio.Task[None] | None = None

    @classmethod
    def get_config_class(cls) -> type[Config]:
        """What maubot makes `self.config` of."""
        return Config

    async def start(self) -> None:
        """Begin to live; what goes wrong is told in the log."""
        interrupt_between_steps(asyncio.get_running_loop())
        self._life = asyncio.create_task(self._live())
        self._life.add_done_callback(self._over)

    async def stop(self) -> None:
        """End the node cleanly: its tasks are dead and its claims given back when this returns."""
        life, node = self._life, self._node
        self._life = self._node = None
        if life is None:
            return
        wait_s = SLACK_S
        if node is None or node.outbox is None:
            life.cancel()  # it has not begun
        else:
            node.stop()
            wait_s += node.settings.coordinator.kill_grace + CLOSE_S + GOODBYE_S
        await asyncio.wait({life}, timeout=wait_s)
        if not life.done():
            self.log.error(f"the node did not end within {wait_s:.0f} s; it is cut off")
            life.cancel()
            await asyncio.wait({life}, timeout=wait_s)

    async def on_external_config_update(self) -> None:
        """A changed config holds from now on: the node starts anew with it."""
        await self.stop()
        await self.start()

    def _over(self, life: asyncio.Task[None]) -> None:
        """The node ended by itself: maubot shall show the instance as stopped."""
        instance = PluginInstance.cache.get(self.id)
        if life is self._life and instance is not None and not life.cancelled():
            self._farewell = asyncio.ensure_future(instance.stop())

    async def _live(self) -> None:
        try:
            api = self.client.api
            account = Account(str(api.base_url), self.client.mxid, api.token)
            await self._serve(settings_of(self.config.written(), account, Path.cwd()))
        except (CisbotError, OSError) as error:
            for line in str(error).splitlines():
                self.log.error(line)
        except Exception:  # noqa: BLE001 - the border to maubot, which nothing of ours may bring down
            self.log.exception("the node has stopped by a fault of cisbot's")

    async def _serve(self, settings: Settings) -> None:
        """Be a node until told to stop. A homeserver that is away at the start is waited for."""
        code = await asyncio.to_thread(copy_code, settings.node.data_dir)
        backoff = Backoff(settings.matrix.user_id)
        async with Api(settings.matrix.homeserver, self.client.api.token, user_id=self.client.mxid) as api:
            while True:
                self._node = Node(settings, api, self.log.info, code_path=code)
                try:
                    return await self._node.serve(self._follow)
                except (Unreachable, RateLimited) as away:
                    self.log.warning(f"the node can't start yet, trying on: {away}")
                await pause(backoff.next_s())

    async def _follow(self, room_id: RoomId, cursor: str | None, node: Node) -> None:
        """Feed the node from maubot's sync until cancelled."""
        assert node.outbox is not None
        tap = SyncTap(
            node.api,
            room_id,
            UserId(node.settings.matrix.user_id),
            cursor=cursor,
            emit=node.emit,
            say=node.say,
            fail=node.fail,
            on_encrypted=node.outbox.forbid,
        )

        async def fed(event: Mapping[str, Mapping[str, object]]) -> None:
            await tap.feed(event["data"])

        self.client.add_event_handler(InternalEventType.SYNC_SUCCESSFUL, fed, wait_sync=True)
        try:
            if self.client.syncing_task is None:
                self.log.warning(f"the sync of {self.client.mxid} is off: this node hears nothing")
            self.log.info(f"{node.settings.node.id} follows {room_id}")
            await tap.start()
            await asyncio.Event().wait()
        finally:
            self.client.remove_event_handler(InternalEventType.SYNC_SUCCESSFUL, fed)
