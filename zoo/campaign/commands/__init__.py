"""The commands of ``python -m zoo.benchmark``, a module each."""
