"""A small Go program, its visitors, and their spans: what `make demo` runs."""
