"""Everything that talks to the kernel: objects, attaching, buffers, and what this kernel can do.

features    what works here, found by trying
btf         records and layouts, learnt from the compiled object
objects     an object file loaded: its programs and maps
attach      a program at places of an executable, by one of three back-ends
ring, perf  records out of the kernel, in bulk
libbpf, syscalls   the two files that call C
"""
