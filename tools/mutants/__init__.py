"""Mutation testing: small defects are planted one at a time, and the tests must notice (`make mutants`)."""
