"""Which processes there are, what they run, and when that changes."""
