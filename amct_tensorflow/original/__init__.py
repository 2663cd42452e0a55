"""The import paths of the original toolkit, and its functions that are not this tool."""
