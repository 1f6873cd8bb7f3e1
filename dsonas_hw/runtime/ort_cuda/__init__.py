"""ONNX Runtime with its CUDA provider."""
