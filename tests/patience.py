"""How long tests wait."""

PATIENCE = 60.0
"""Seconds for what takes a moment where the machine is idle: a busy one makes tests slow, and never wrong."""
