"""`make bench-peers`: kvstore beside stores of equal durability."""
