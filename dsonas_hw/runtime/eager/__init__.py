"""PyTorch, layer by layer."""
