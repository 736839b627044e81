"""Trained agents, a bundle each: data that every command finds by name (:mod:`hub.locate`)."""
