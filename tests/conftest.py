"""Fixtures for tests of the whole as well as of the kernel's part."""

from tests.kernel.conftest import backend, found, tracing

__all__ = ["backend", "found", "tracing"]
