"""The networks. Knows no files."""
