"""The factors of layers: the record file, and the files beside it."""
