"""The supervisor: one worker process per scope, found or started, reused, and never left behind.

States of a worker: waiting (for a place or for its backoff), starting, ready, ending. Authority: the pool
alone starts and stops workers; the workers alone start and stop tasks. Failures: a worker that dies, breaks
the protocol or misses a deadline is killed with all its processes, and its unfinished tasks are reported.
When the node dies, a guard beside each worker sees to it that nothing of the worker survives.
"""
