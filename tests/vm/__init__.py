"""Virtual machines for the tests: other kernels, another architecture, a real systemd.

`python -m tests.vm` boots Debian's cloud kernels under QEMU and runs one command in each.
"""
