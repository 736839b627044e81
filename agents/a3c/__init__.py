"""A3C: asynchronous advantage actor-critic, one file per part.

``a3c`` is what users see; ``worker`` runs in the processes, ``supervision`` starts and watches
them, ``shared_optimizer`` and ``shared_normalizer`` are what they have in common.
"""

from __future__ import annotations

from agents.a3c.a3c import A3C

__all__ = ["A3C"]
