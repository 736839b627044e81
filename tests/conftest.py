"""Settings for every test: one thread and a fixed seed, so that numbers repeat on any machine."""

from __future__ import annotations

import signal

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


# A process started in the background of a shell inherits an ignored Ctrl-C, and so would every
# process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
