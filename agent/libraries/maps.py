"""The fields by which programs walk through a Go map[string][]string (bpf/http_headers.h)."""

from __future__ import annotations

SWISS_MAP = (
    "internal/runtime/maps.Map.dirPtr",
    "internal/runtime/maps.Map.dirLen",
    "internal/runtime/maps.table.groups.data",
    "internal/runtime/maps.table.groups.lengthMask",
    "net/http.Header:group_size",
    "net/http.Header:key_offset",
    "net/http.Header:key_stride",
    "net/http.Header:elem_offset",
    "net/http.Header:elem_stride",
)
"""Since Go 1.24. The geometry is that of every map with such keys and elems."""

HASH_MAP = (
    "runtime.hmap.flags",
    "runtime.hmap.B",
    "runtime.hmap.buckets",
    "runtime.hmap.oldbuckets",
)
"""Up to Go 1.23."""

MAP_FIELDS = (SWISS_MAP, HASH_MAP)
