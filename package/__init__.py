"""Packages of gospan: a tree of files as they are installed, and a .deb or an .rpm of it.

`python -m package deb` is what `make deb` runs. Nothing is compiled for it but the BPF objects, which `make bpf` has
done: the libraries come as wheels, so that a package for another architecture can be made too.
"""
