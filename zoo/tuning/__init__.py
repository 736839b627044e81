"""The search for hyperparameters: what is tried, how it is scored, and how a preset comes of it."""
