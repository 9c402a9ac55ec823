from __future__ import annotations

from dataclasses import replace

from agent.config import BufferKind, Config, Export, Kernel, Log, Status, change
from agent.config.settings import settings


def test_what_is_applied_and_what_waits() -> None:
    old = Config(
        kernel=Kernel(buffer_size=1 << 20), places={"kernel.buffer_size": "a:1", "export.timeout": "a:2"}
    )
    new = Config(
        export=Export(timeout=3.0),
        kernel=Kernel(buffer=BufferKind.PERF, drain_interval=0.5),
        status=Status(recent_spans=7),
        places={"kernel.buffer": "a:1", "export.timeout": "a:3"},
    )
    found = change(old, new)
    assert found.applied == ("export.timeout", "kernel.drain_interval", "status.recent_spans")
    assert found.postponed == ("kernel.buffer", "kernel.buffer_size")
    assert str(found) == (
        "changed export.timeout, kernel.drain_interval, status.recent_spans; "
        "kernel.buffer, kernel.buffer_size will change at the next start"
    )
    # In force is the new one, but for what waits; places are those of the values.
    assert found.config.kernel == Kernel(buffer_size=1 << 20, drain_interval=0.5)
    assert found.config.export == new.export
    assert found.config.places == {"kernel.buffer_size": "a:1", "export.timeout": "a:3"}
    # The next time it is compared with what is in force, not with what was asked for.
    assert change(found.config, new).postponed == found.postponed
    assert change(found.config, replace(found.config, log=Log())).applied == ()
    assert str(change(old, old)) == "nothing has changed"


def test_every_setting_is_applied_or_waits() -> None:
    """A new setting is one that needs a restart, or Daemon._apply has to know of it: then add it here."""
    applied = {setting.path for setting in settings() if not setting.info.restart}
    # The agent has no part in offsets.update, which is read by `gospan offsets`.
    whole = (
        "export",
        "metrics",
        "discovery",
        "http",
        "libraries",
        "sampler",
        "resource",
        "log",
        "offsets.update",
    )
    single = {"kernel.drain_interval", "status.recent_spans"}
    assert {path for path in applied if path.rpartition(".")[0] not in whole} == single
