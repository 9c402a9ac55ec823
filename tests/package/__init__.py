"""The package's life under a real systemd: `make test-package`.

The same steps (lifecycle.py) run in namespaces of this machine, on its own kernel, and in virtual machines, on the
kernel that the distribution has.
"""
