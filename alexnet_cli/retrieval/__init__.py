"""Images to fc7 vectors, vectors to an index, a query to its neighbours. Knows no torch."""
