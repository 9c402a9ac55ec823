"""gospan: distributed traces from unmodified Go programs."""

__version__ = "0.1.0"
