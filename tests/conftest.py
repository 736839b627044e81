"""Settings for every test: one thread and a fixed seed, so that numbers repeat on any machine."""

from __future__ import annotations

import os
import signal
import tempfile

import pytest
import torch

# Read by huggingface_hub when it is imported. No test asks huggingface.co anything, and none sees
# the token or the cache of whoever runs the tests.
os.environ.update(
    HF_HOME=tempfile.mkdtemp(prefix="natural-zoo-hf-"),
    HF_ENDPOINT="http://127.0.0.1:9",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_DISABLE_XET="1",
)
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
    os.environ.pop(_name, None)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


# A process started in the background of a shell inherits an ignored Ctrl-C, and so would every
# process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
