"""The float model: read, prepared, its layers found and fused."""
