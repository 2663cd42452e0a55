"""The factors of every layer: the record file, and what stands beside it."""
