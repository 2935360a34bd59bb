"""Measures how a package of Python is built: circles of imports, modules that many use, classes, sizes."""
