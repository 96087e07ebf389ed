"""The paper's experiments, and one of what came before it, from data to table and figure."""
