"""What tracing costs: what `make bench` runs."""
