"""Converts other libraries' models to ONNX, and checks that they predict the same."""
