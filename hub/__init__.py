"""What an agent is once trained: bundles, ONNX files and the Hub."""

__version__ = "0.1.0"
