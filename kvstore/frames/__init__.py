"""Streams of frames over plain TCP: what nodes and the Python client send each other. See docs/streams.md."""
