"""Records to spans: decoding, templates, resources, export."""
