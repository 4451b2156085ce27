"""What Android's logs and bug reports say about kills and memory: text -> values -> a record. See docs/import.md."""
