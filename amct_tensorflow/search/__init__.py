"""Finding which layers to roll back to float."""
