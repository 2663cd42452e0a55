"""The float model: loaded, prepared, its layers found and fused; and what the tool makes of it."""
