"""The Go libraries that can be traced, one module each."""

from agent.libraries.library import Feature, Library, Probe
from agent.libraries.net_http_client import NET_HTTP_CLIENT
from agent.libraries.net_http_server import NET_HTTP_SERVER

LIBRARIES: tuple[Library, ...] = (NET_HTTP_SERVER, NET_HTTP_CLIENT)

__all__ = ["LIBRARIES", "Feature", "Library", "Probe"]
