"""What an agent is once trained: bundles, ONNX files and the Hub."""
