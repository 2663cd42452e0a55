"""Reading, indexing and rewriting GraphDefs."""
