"""The paper's experiments, from data to table and figure."""
