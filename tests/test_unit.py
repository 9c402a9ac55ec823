"""The unit file: valid for systemd, and in agreement with what the agent expects of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from agent.config import Config
from agent.config.destination import HEADERS_CREDENTIAL
from agent.config.load import DEFAULT_FILE

UNIT = Path(__file__).parents[1] / "systemd/gospan.service"


def settings() -> dict[str, list[str]]:
    """Read the unit's settings; one may be given several times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_unit_fits_the_agent() -> None:
    unit = settings()
    assert unit["Type"] == ["notify"]
    assert unit["ExecStartPre"] == ["/usr/bin/gospan check --quiet --tolerate-limits"]
    assert unit["ExecReload"][0] == "/usr/bin/gospan check --quiet --configuration"
    assert unit["ConfigurationDirectory"] == [DEFAULT_FILE.parent.name]
    assert unit["LoadCredential"][0].split(":") == [HEADERS_CREDENTIAL, str(DEFAULT_FILE.parent / "headers")]
    assert unit["SetCredential"] == [f"{HEADERS_CREDENTIAL}:# none"]
    assert {"bpf", "perf_event_open"} <= set(unit["SystemCallFilter"][0].split())


def test_unit_hides_no_program() -> None:
    hiding = {
        "ProtectProc",
        "ProcSubset",
        "PrivateUsers",
        "PrivatePIDs",
        "ProtectKernelTunables",
        "InaccessiblePaths",
    }
    assert not hiding & set(settings())


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """Every line is understood: systemd warns of those it doesn't know."""
    analyze = shutil.which("systemd-analyze")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/gospan", shutil.which("true") or "/bin/true"))
    assert settings()["ExecStart"] == ["/usr/bin/gospan run"]
    if analyze:
        result = subprocess.run(
            [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
        )
        ours = [line for line in result.stderr.splitlines() if UNIT.name in line or str(tmp_path) in line]
        assert ours == []
        assert result.returncode == 0


def test_the_updater_fits_the_agent() -> None:
    text = (UNIT.parent / "gospan-offsets.service").read_text().splitlines()
    assert "ExecStart=/usr/bin/gospan offsets update --scheduled --config /dev/null" in text
    assert {"DynamicUser=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"} <= set(text)
    assert f"StateDirectory={Path(Config().offsets.directory).name}" in text
    assert Path(Config().offsets.directory).parent == Path("/var/lib")
