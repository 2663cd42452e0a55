"""Files that appear whole or not at all, and what a program on a console needs."""
