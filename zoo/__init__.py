"""The application: train, evaluate, watch, record and plot agents from the command line."""

__version__ = "0.1.0"
