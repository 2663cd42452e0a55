"""What to quantize and how: config.json and the simplified configuration."""
