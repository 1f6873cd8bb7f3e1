"""Hardware-aware neural architecture search by direct sparse optimisation."""

__version__ = "0.1.0"
