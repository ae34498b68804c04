"""Runs: what was published, what may be claimed, and what the holder does task by task.

A run is PENDING or WAITING (for approval) until it is claimed, RUNNING while a node holds it, LOST when its
holder went silent and its DAG says "ask". The room's order of events decides; every node folds the same.
"""
