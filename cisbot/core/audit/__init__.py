"""Auditing: what a room's events prove of its claims, told afterwards by somebody who took no part.

A reading (events as the homeserver tells them) becomes a report: who held what, which claims were void,
what contradicts the rules. Authority is the same fold that the nodes use; `order.py` says how far the order
of a reading can be trusted. Pure; it writes nothing anywhere.
"""
