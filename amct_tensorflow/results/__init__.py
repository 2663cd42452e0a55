"""The results of a run: files, report, summary, and a comparison with the float model."""
