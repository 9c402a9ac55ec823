from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.commands import EXIT_USAGE, check
from agent.commands.findings import Finding, Level
from agent.commands.terminal import Terminal
from agent.kernel.features import features
from agent.libraries import LIBRARIES
from agent.offsets.table import Table
from agent.paths import object_file
from tests.commands.conftest import POWERLESS, Gospan, as_nobody, gospan_process

pytestmark = pytest.mark.kernel

EXIT = {"ok": 0, "limited": 1, "unable": 2}


@pytest.fixture
def quiet_network() -> tuple[str, str]:
    """Flags under which no collector is looked for."""
    return "--traces-exporter", "none"


def test_report_of_this_machine(gospan: Gospan, quiet_network: tuple[str, str]) -> None:
    result = gospan("check", "--json", *quiet_network)
    assert result.err == ""
    report = json.loads(result.out)
    assert result.status == EXIT[report["status"]]
    found = {one["what"]: one for one in report["findings"]}
    assert {one["area"] for one in found.values()} >= {"configuration", "kernel", "programs", "offsets"}
    assert found["loading"]["level"] == found["backend"]["level"] == "ok"
    assert found["process"]["sentence"] == "The kernel takes the programs that follow processes."
    for library in LIBRARIES:
        sentence = f"The kernel takes all programs for {library.name}."
        assert found[library.name] == {
            "area": "programs",
            "what": library.name,
            "level": "ok",
            "sentence": sentence,
        }
    levels = {one["level"] for one in report["findings"]}
    assert report["status"] == ("unable" if "failure" in levels else "limited" if "limit" in levels else "ok")

    text = gospan("check", *quiet_network)
    assert text.status == result.status
    flat = " ".join(text.out.split())
    for one in report["findings"]:
        assert f"{one['level']} {' '.join(one['sentence'].split())}" in flat
    assert max(map(len, text.out.splitlines())) <= 100
    tolerant = gospan("check", "--tolerate-limits", *quiet_network)
    assert (tolerant.status, tolerant.out) == (0, text.out)


def test_quiet_says_only_what_is_not_right(gospan: Gospan, quiet_network: tuple[str, str]) -> None:
    loud = gospan("check", *quiet_network).out.splitlines()
    quiet = gospan("check", "--quiet", *quiet_network).out.splitlines()
    assert not [line for line in quiet if line.startswith(("  ok", "  note"))]
    assert [line for line in quiet if line.startswith(("  limit", "  warning"))] == [
        line for line in loud if line.startswith(("  limit", "  warning"))
    ]
    fine = [Finding("kernel", "loading", Level.OK, "Fine."), Finding("kernel", "loops", Level.NOTE, "No.")]
    assert list(check.as_text(fine, 0, Terminal(), quiet=True)) == []


def test_each_buffer_and_each_back_end_loads(gospan: Gospan, quiet_network: tuple[str, str]) -> None:
    for settings in (
        ("kernel.buffer=perf", "kernel.attach=perf"),
        ("kernel.buffer=perf", "kernel.attach=auto"),
    ):
        flags = [word for setting in settings for word in ("--set", setting)]
        report = json.loads(gospan("check", "--json", *flags, *quiet_network).out)
        assert report["status"] != "unable"
        found = {one["what"]: one["sentence"] for one in report["findings"]}
        assert found["buffer"].startswith("Records will come through perf buffers of 4 MiB")


def test_refused_programs_are_named(
    gospan: Gospan, quiet_network: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An object whose library is no object at all: the others load, and that one is named."""
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(b"\x7fELF and nothing more")
    real = object_file

    def with_broken(name: str) -> Path:
        return broken if name == LIBRARIES[0].object else real(name)

    monkeypatch.setattr("agent.kernel.programs.object_file", with_broken)
    report = json.loads(gospan("check", "--json", *quiet_network).out)
    [finding] = [one for one in report["findings"] if one["what"] == LIBRARIES[0].name]
    assert finding["level"] == "limit"
    assert finding["sentence"].startswith(f"The kernel refuses the programs for {LIBRARIES[0].name}: ")
    assert str(broken) in finding["sentence"]


def test_missing_objects(
    gospan: Gospan, quiet_network: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nowhere(name: str) -> Path:
        return tmp_path / f"{name}.bpf.o"

    monkeypatch.setattr("agent.commands.check.object_file", nowhere)
    result = gospan("check", "--quiet", *quiet_network)
    assert result.status == 2
    text = " ".join(result.out.split())
    assert f"failure The BPF object {tmp_path}/process.bpf.o is missing; `make setup`" in text
    assert "gospan can't work here." in text


def test_mistakes_in_the_configuration(gospan: Gospan, tmp_path: Path) -> None:
    """All of them are told, the kernel is looked at all the same, and no collector is."""
    path = tmp_path / "gospan.toml"
    path.write_text('[export]\nendpont = "http://x"\n')
    flags = ("--config", str(path), "--set", "kernel.buffer=round")
    result = gospan("check", *flags)
    assert (result.status, result.err) == (2, "")
    text = " ".join(result.out.split())
    assert f"failure {path}:2: unknown key 'endpont' in [export]; did you mean 'endpoint'?" in text
    assert "kernel.buffer wants one of auto, ring, perf" in text
    assert "BPF programs can be loaded." in result.out
    assert "\ncollector\n" not in result.out
    assert gospan("check", "--tolerate-limits", *flags).status == 2

    alone = gospan("check", "--configuration", *flags)
    assert alone.status == 2
    assert "unknown key" in alone.out
    assert "BPF" not in alone.out
    assert alone.out.endswith("\nThe configuration can't be used.\n")

    shown = gospan("check", "--show-config", *flags)
    assert (shown.status, shown.out) == (2, "")
    assert len(shown.err.splitlines()) == 2


def test_configuration_alone(gospan: Gospan) -> None:
    result = gospan("check", "--configuration", "--endpoint", "http://nobody.invalid:4317")
    assert result.status == 0
    assert "The configuration is valid" in result.out
    assert "BPF" not in result.out
    assert "nobody.invalid" not in result.out
    assert gospan("check", "--configuration", "--quiet").out == ""


def test_show_config(gospan: Gospan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, the environment and flags, each over the one before; secrets are hidden."""
    path = tmp_path / "gospan.toml"
    path.write_text('[export]\nheaders = { api-key = "hunter2" }\ntimeout = "3s"\n[log]\nlevel = "error"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/10-team.toml").write_text('[export]\ncompression = "gzip"\n')
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1500")
    monkeypatch.setenv("GOSPAN_DEBUG", "1")
    result = gospan(
        *("check", "--show-config", "--config", str(path), "--endpoint", "https://c", "--log-level", "debug"),
        *("--traces-exporter", "console", "--log-format", "json", "--set", "export.queue_size=4096"),
    )
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert 'endpoint = "https://c:4317"  # command line' in lines
    assert 'sink = "console"  # command line' in lines
    assert 'level = "debug"  # command line' in lines
    assert 'format = "json"  # command line' in lines
    assert "queue_size = 4096  # command line" in lines
    assert f'timeout = "3s"  # {path}:3' in lines
    assert f'compression = "gzip"  # {tmp_path}/conf.d/10-team.toml:2' in lines
    assert 'schedule_delay = "1.5s"  # OTEL_BSP_SCHEDULE_DELAY' in lines
    assert "hunter2" not in result.out
    assert "no setting" not in gospan("check", "--traces-exporter", "none").out  # GOSPAN_DEBUG


def test_without_privileges(quiet_network: tuple[str, str]) -> None:
    result = gospan_process("check", *quiet_network, wrapper=POWERLESS)
    assert (result.status, result.err) == (2, "")
    text = " ".join(result.out.split())
    assert "failure BPF programs can't be loaded, so nothing can be traced: Operation not permitted" in text
    assert "CAP_BPF is missing: no BPF at all." in text
    assert "Not known" not in text
    assert "Run it as root" not in text  # it was


def test_ordinary_user_is_told_that_the_service_may_do_more() -> None:
    def report() -> str:
        features.cache_clear()
        parser = argparse.ArgumentParser()
        check.add_arguments(parser)
        found = list(check.find_out(parser.parse_args(["--traces-exporter", "none"])))
        return "\n".join(check.as_text(found, EXIT_USAGE, Terminal(), quiet=False))

    lines = [" ".join(line.split()) for line in as_nobody(report).splitlines()]
    assert lines[lines.index("kernel") + 1] == (
        "note This is what you may do; the service may do more. Run it as root to see what."
    )
    assert lines[-1] == "gospan can't work here when you run it."


def test_offsets_table(
    gospan: Gospan, quiet_network: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "offsets.json"
    monkeypatch.setattr("agent.offsets.active.packaged_offsets", lambda: path)

    def level_and_sentence() -> tuple[str, str]:
        report = json.loads(gospan("check", "--json", *quiet_network).out)
        [finding] = [one for one in report["findings"] if one["area"] == "offsets"]
        return finding["level"], finding["sentence"]

    level, sentence = level_and_sentence()
    assert level == "limit"
    assert sentence.startswith(f"Fields that executables don't describe themselves stay unknown: {path}: ")
    path.write_text("{")
    level, sentence = level_and_sentence()
    assert (level, "is damaged" in sentence) == ("limit", True)
    path.write_text(Table(datetime(2026, 2, 3, tzinfo=timezone.utc), {}).dump())
    assert level_and_sentence() == (
        "ok",
        f"Offsets that executables don't tell come from {path}, made on 2026-02-03.",
    )


def test_lines_of_the_verifier_stay_lines() -> None:
    log = "The kernel refuses the program p of l: the verifier refused it: 0: (bf) r6 = r1\n1: \x1b[2J (95) exit."
    text = list(
        check.as_text([Finding("programs", "l", Level.LIMIT, log)], 1, Terminal(width=80), quiet=False)
    )
    assert text[0] == "programs"
    assert text[1].startswith("  limit    The kernel refuses")
    assert "             1: \\x1b[2J (95) exit." in text
    assert text[-1] == "gospan works here, with limits."
