"""Real message brokers for the tests, one module each, on the loopback and with their data in a temporary folder.

A broker that runs on the Java virtual machine has a pom.xml, which says what it is made of, and beside it the SHA-256
of each file. `python -m tests.brokers NAME` runs one until it is interrupted.
"""
