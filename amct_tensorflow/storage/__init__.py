"""Files that appear whole or not at all, together or not at all, and for one run at a time."""
