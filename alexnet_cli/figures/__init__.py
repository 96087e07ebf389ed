"""Drawings: learning curves, contact sheets, pages."""
