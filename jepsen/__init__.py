"""Partition tests in the manner of Jepsen: real processes, real faults, histories and their checkers.

The words are Jepsen's: a *workload* has a generator and clients, a *nemesis* makes faults, what happened
is a *history* (jepsen.history), *checkers* (jepsen.checkers) judge it by *models*, and a *report*
(jepsen.report) shows it.
"""
