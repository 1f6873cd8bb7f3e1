"""Reads ONNX files into kernels."""
