"""The pure core: functions of their inputs, without network, clock, randomness, files or processes."""
