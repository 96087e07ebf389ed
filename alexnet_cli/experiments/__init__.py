"""The paper's experiments, and those of what came before it, from data to table and figure."""
