"""A grid of training runs, algorithms × tasks × seeds, and what is told about it."""
