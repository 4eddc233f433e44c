"""Rewrites of a fake-quantized program, for the engines that read it: OpenVINO and ONNX Runtime."""
