"""The INT8 model for ONNX Runtime."""
