"""Measurements beside peers: run by hand, results kept as files."""
