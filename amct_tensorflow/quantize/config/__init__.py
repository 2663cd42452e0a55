"""The configuration: config.json, and its simplified form."""
