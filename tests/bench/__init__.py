"""Benchmarks: they print ratios, which a slower or busier machine changes little."""
