"""`make bench-engine`: the storage engine beside LevelDB, RocksDB and SQLite."""
