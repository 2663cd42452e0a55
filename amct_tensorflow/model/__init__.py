"""The float model: loading, preparation, its layers, fusion, and inspection."""
