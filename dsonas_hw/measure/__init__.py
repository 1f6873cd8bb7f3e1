"""Samples of what a device needs, and what is said of them."""
