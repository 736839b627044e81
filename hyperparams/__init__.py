"""Hyperparameters per algorithm and task: data only, one YAML file per algorithm."""
