"""Convert other libraries' models to ONNX, and check that they predict the same."""
