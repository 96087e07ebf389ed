"""Pictures to features, features to an index, a query to its neighbours. Imports no torch."""
