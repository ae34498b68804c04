"""The simulator: the product's node loop and coordinator on models of all that is around them.

One seed decides everything, time is virtual. `homeserver.py` models the room and its state, `network.py`
the way to it, `machine.py` a machine, `process.py` what runs on it, `workers.py` what runs tasks, `plan.py`
what a history is made of, `chaos.py` the faults, `world.py` time, `reference.py` the fold written a second
time, `checkers.py` what must hold, `mutants.py` the protective rules and how to switch each off. `script.py`
tells a history by hand: `scenarios` are such stories, and Hypothesis makes some more.
"""
