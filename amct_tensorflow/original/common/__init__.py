"""Import paths of the original toolkit."""
