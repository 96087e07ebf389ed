"""Models from weights that were trained elsewhere: one module per format. Reading a file runs no code from it."""
