"""A vectorised 5G OFDMA downlink in pure JAX."""

from jaxrl5g.env import make, registered

__version__ = "0.1.0"

__all__ = ["__version__", "make", "registered"]
