"""The Go libraries that can be traced, one module each."""

from agent.libraries.chi import CHI
from agent.libraries.database_sql import DATABASE_SQL
from agent.libraries.echo import ECHO
from agent.libraries.gin import GIN
from agent.libraries.gorilla_mux import GORILLA_MUX
from agent.libraries.grpc_client import GRPC_CLIENT
from agent.libraries.grpc_propagation import GRPC_PROPAGATION
from agent.libraries.grpc_server import GRPC_SERVER
from agent.libraries.http1_propagation import HTTP1_PROPAGATION
from agent.libraries.http2_propagation import HTTP2_PROPAGATION
from agent.libraries.kafka_go_consumer import KAFKA_GO_CONSUMER
from agent.libraries.kafka_go_producer import KAFKA_GO_PRODUCER
from agent.libraries.kafka_go_propagation import KAFKA_GO_PROPAGATION
from agent.libraries.library import Feature, Library, Probe, Substitute
from agent.libraries.net_http_client import NET_HTTP_CLIENT
from agent.libraries.net_http_server import NET_HTTP_SERVER
from agent.libraries.pgx import PGX

LIBRARIES: tuple[Library, ...] = (
    NET_HTTP_SERVER,
    NET_HTTP_CLIENT,
    HTTP1_PROPAGATION,
    HTTP2_PROPAGATION,
    GIN,
    GORILLA_MUX,
    CHI,
    ECHO,
    GRPC_SERVER,
    GRPC_CLIENT,
    GRPC_PROPAGATION,
    KAFKA_GO_PRODUCER,
    KAFKA_GO_CONSUMER,
    KAFKA_GO_PROPAGATION,
    DATABASE_SQL,
    PGX,
)

__all__ = ["LIBRARIES", "Feature", "Library", "Probe", "Substitute"]
