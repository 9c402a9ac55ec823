"""Configuration: flags, environment, conf.d/*.toml, config.toml, defaults, in this precedence.

`load()` gives a frozen `Config`; schema.py has every setting, render.py writes them out again.
"""

from agent.config.change import Change, change
from agent.config.choices import (
    AttachWay,
    BufferKind,
    Compression,
    Level,
    LogFormat,
    MetricsExporter,
    Protocol,
    RpcNames,
    Sink,
    UpdateMode,
)
from agent.config.destination import uses_tls
from agent.config.exporting import Destination, Export, Metrics
from agent.config.files import Problem
from agent.config.load import DEFAULT_FILE, Config, ConfigError, find_files, load
from agent.config.schema import (
    Discovery,
    Http,
    Kernel,
    Libraries,
    Log,
    Offsets,
    OffsetsUpdate,
    Propagation,
    Resources,
    Sampling,
    Settings,
    Status,
)
from agent.config.selectors import Rule, Sampler, Selector, Subject

__all__ = [
    "DEFAULT_FILE",
    "AttachWay",
    "BufferKind",
    "Change",
    "Compression",
    "Config",
    "ConfigError",
    "Destination",
    "Discovery",
    "Export",
    "Http",
    "Kernel",
    "Level",
    "Libraries",
    "Log",
    "LogFormat",
    "Metrics",
    "MetricsExporter",
    "Offsets",
    "OffsetsUpdate",
    "Problem",
    "Propagation",
    "Protocol",
    "Resources",
    "RpcNames",
    "Rule",
    "Sampler",
    "Sampling",
    "Selector",
    "Settings",
    "Sink",
    "Status",
    "Subject",
    "UpdateMode",
    "change",
    "find_files",
    "load",
    "uses_tls",
]
