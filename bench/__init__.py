"""Benchmarks: measured figures, not tests."""
