"""How a cluster changes: what may follow on a state, who decides, and when a step is over. Pure.

docs/membership.md has the protocol, and what of it is proved.
"""
