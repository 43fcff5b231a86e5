"""The report of a run: one HTML file with what it reached, what it gets wrong, and pictures."""
