"""Claims: who may run what, decided by one pure fold over the room's stream.

A key is free or held, slot by slot; only an accepted event changes that. Authority is the stream order of
the room's home server, nothing else: no PUT response, no state key, no wall clock. A node that missed
events is unsure of a key and judges nothing there until a carried head, whose `after` it saw, makes it
sure again. `fold.py` is the rule, `ledger.py` knows of what a node is sure, `keeper.py` holds and renews.
"""
