"""The application: train, evaluate, watch, record and plot agents from the command line."""

from hub import __version__ as __version__
