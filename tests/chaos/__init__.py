"""Real faults on a real Synapse: `make chaos`, and its short form among the tests.

`plan` draws the faults from a seed, `faults` and `proxy` commit them, `storm` keeps their hours, `cluster`
holds the machines. Tasks (`task`) write down what they do outside cisbot and into a `sink` that refuses old
fences; `follow` writes down the room. `checker` judges from these files alone: it and `follow` import nothing
of cisbot.
"""
