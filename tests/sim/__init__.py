"""The simulator: real claim machines on a model of the homeserver, virtual time, every choice from one seed.

`homeserver.py` models the room, `network.py` the way to it, `node.py` one machine, `world.py` time and
chaos, `reference.py` the fold written a second time, `checkers.py` what must hold after every step.
"""
