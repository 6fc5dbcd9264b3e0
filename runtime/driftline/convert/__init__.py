"""Models of other libraries into ONNX, checked to predict the same."""
