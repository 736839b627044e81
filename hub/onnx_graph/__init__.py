"""The parts of an agent as nodes of an ONNX graph; :mod:`hub.onnx_export` puts them together."""
