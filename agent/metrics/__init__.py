"""The agent's own metrics: what it counts of itself, sent by OTLP and shown to Prometheus."""
