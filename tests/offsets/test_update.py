"""`gospan offsets update`, `rollback` and `show` by files and over HTTPS, and everything that may go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest

from agent.offsets.store import Store
from tests.commands.conftest import as_nobody
from tests.offsets.conftest import Offsets, Site, table_of
from tests.support.authority import Authority, make_signing_key, serving_https
from tests.support.golang import REPOSITORY

OLD, NEW = table_of("2090-01-01"), table_of("2090-02-02")


@pytest.fixture
def installed(site: Site, offsets: Offsets, tmp_path: Path) -> Path:
    """The active table's file, with OLD in it."""
    assert offsets("update", "--from-file", site.write(tmp_path / "old.json", OLD)).status == 0
    return site.active


def test_from_file_and_back(site: Site, offsets: Offsets, installed: Path, tmp_path: Path) -> None:
    new = site.write(tmp_path / "new.json", NEW)
    done = offsets("update", "--from-file", new)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{new}: in force now: of 2090-02-02 00:00 UTC, ")
    assert installed.read_bytes() == NEW
    assert "already in force" in offsets("update", "--from-file", new).out
    shown = offsets("show").out
    assert shown.startswith(f"table      {installed}\nfrom       {new}, ")
    assert "\ngenerated  2090-02-02 00:00 UTC, which is still to come" in shown
    assert f"before it  {site.root}/previous/offsets.json, from {tmp_path}/old.json\n" in shown
    assert "in force again: of 2090-01-01" in offsets("rollback").out
    assert installed.read_bytes() == OLD
    assert offsets("update", "--from-file", new).failed("this very table was rolled back; --force")
    assert offsets("update", "--from-file", new, "--force").status == 0
    assert installed.read_bytes() == NEW
    assert offsets("update", "--default").status == 0
    assert offsets("show").out.startswith(f"table      {REPOSITORY}/offsets.json\nfrom       this gospan\n")
    assert offsets("rollback").failed("no update is in force")
    # Not more than two are kept.
    assert len(list((site.root / "tables").iterdir())) <= 2


def test_in_a_directory_behind_a_link(site: Site, offsets: Offsets, tmp_path: Path) -> None:
    """As systemd has it for a service whose user exists only meanwhile: /var/lib/private/gospan-offsets."""
    (tmp_path / "private").mkdir()
    site.root.symlink_to("private")
    for number, table in enumerate((OLD, NEW)):
        done = offsets("update", "--from-file", site.write(tmp_path / f"{number}.json", table))
        assert (done.status, done.err) == (0, "")
        assert site.active.read_bytes() == table
    assert offsets("rollback").status == 0
    assert site.active.read_bytes() == OLD


def test_before_the_first_update_there_was_gospans_own(offsets: Offsets, installed: Path) -> None:
    assert f"{REPOSITORY}/offsets.json is in force again" in offsets("rollback").out
    assert not installed.exists()


def test_a_newer_gospan_is_not_held_back_by_an_old_update(
    site: Site, offsets: Offsets, tmp_path: Path
) -> None:
    old = site.write(tmp_path / "old.json", table_of("2020-01-01"))
    assert offsets("update", "--from-file", old).failed("--force takes it all the same")
    assert offsets("update", "--from-file", old, "--force").status == 0
    assert "forced\n" in offsets("show").out
    assert offsets("show").out.startswith(f"table      {site.active}\n")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"{", "is damaged"),
        (table_of("2090-02-02", schema=2), "a newer gospan reads it"),
        (table_of("2090-02-02", surplus=1), "has an unknown member 'surplus'"),
        (table_of("2019-02-02"), "is of 2019-02-02 00:00, and the table in force is of 2090-01-01"),
        (b" " * ((16 << 20) + 1), "is larger than 16384 KiB"),
    ],
)
def test_a_table_that_is_refused(
    table: bytes, words: str, site: Site, offsets: Offsets, installed: Path, tmp_path: Path
) -> None:
    new = site.write(tmp_path / "new.json", table)
    assert offsets("update", "--from-file", new).failed(words)
    assert installed.read_bytes() == OLD


def test_signatures_that_are_refused(site: Site, offsets: Offsets, installed: Path, tmp_path: Path) -> None:
    new = site.write(tmp_path / "new.json", NEW)
    new.write_bytes(NEW[:-2])
    assert offsets("update", "--from-file", new).failed("the table was changed, or cut off")
    other = Site(site.root, make_signing_key(tmp_path, "other")[0], site.public)
    assert offsets("update", "--from-file", other.write(new, NEW)).failed("and not by a trusted key")
    assert offsets("update", "--from-file", new, "--force").failed("and not by a trusted key")
    new.with_name("new.json.sig").unlink()
    assert offsets("update", "--from-file", new).failed("new.json.sig: No such file")
    assert installed.read_bytes() == OLD


def test_what_was_put_in_place_by_somebody_else_is_not_used(offsets: Offsets, installed: Path) -> None:
    installed.write_bytes(NEW)
    shown = offsets("show")
    assert shown.out.startswith(f"table      {REPOSITORY}/offsets.json\n")
    assert f"{installed}: the signature of key " in shown.err


def test_without_a_source(offsets: Offsets) -> None:
    assert offsets("update").failed("there is nowhere to fetch a table from")
    assert offsets("update", "--scheduled").out == "offsets.update.mode is off: nothing is fetched\n"


def test_somebody_who_may_not_is_told_the_remedy() -> None:
    with TemporaryDirectory() as name:  # pytest's own are for its user alone
        Path(name).chmod(0o755)
        store = Store(Path(name) / "store")

        def lock() -> str:
            with store.locked():
                return "locked"

        assert as_nobody(lock) == f"{store.root}: you may not change it, try sudo"


def test_two_at_once(site: Site, offsets: Offsets, installed: Path, tmp_path: Path) -> None:
    new = site.write(tmp_path / "new.json", NEW)
    with Store(site.root).locked():
        assert offsets("update", "--from-file", new).failed("another update is at work")
        assert offsets("rollback").failed("another update is at work")
    assert installed.read_bytes() == OLD
    command = [
        sys.executable,
        "-m",
        "agent",
        "offsets",
        "update",
        "--force",
        "--from-file",
        str(new),
        *site.settings,
    ]
    running = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert {process.wait() for process in running} <= {0, 1}
    assert installed.read_bytes() == NEW


def test_a_full_disk(site: Site, offsets: Offsets, tmp_path: Path) -> None:
    site.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(site.root)], check=True)
    try:
        assert offsets("update", "--from-file", site.write(tmp_path / "old.json", OLD)).status == 0
        big = site.write(tmp_path / "new.json", NEW + b" " * (200 << 10))
        assert offsets("update", "--from-file", big).failed(
            "No space left on device; the active table is as it was"
        )
        assert site.active.read_bytes() == OLD
        assert len(list((site.root / "tables").iterdir())) == 1
    finally:
        subprocess.run(["umount", str(site.root)], check=True)


def test_a_kill_at_every_step(site: Site, offsets: Offsets, installed: Path, tmp_path: Path) -> None:
    """Whatever is done last, the one table or the other is active and whole, and the next update works."""
    new = site.write(tmp_path / "new.json", NEW)
    seen = set()
    number = 0
    while True:
        number += 1
        child = os.fork()
        if child == 0:
            _kill_at(number, site, new)
        _, status = os.waitpid(child, 0)
        seen.add(installed.read_bytes())
        assert installed.read_bytes() in (OLD, NEW), f"after step {number}"
        shown = offsets("show")
        assert (shown.status, shown.err) == (0, ""), f"after step {number}"
        if os.WIFEXITED(status):
            break
        old = tmp_path / "old.json"
        assert offsets("update", "--force", "--from-file", old).status == 0, f"after step {number}"
        assert installed.read_bytes() == OLD
        assert len(list((site.root / "tables").iterdir())) <= 2
    assert os.WEXITSTATUS(status) == 0
    assert number > 15
    assert seen == {OLD, NEW}


def _kill_at(number: int, site: Site, new: Path) -> None:
    """In a child: install, and be killed before the change to the file system of this number."""
    from agent.cli import main

    left = number
    changes = {
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.symlink",
        "os.chmod",
        "open",
        "fcntl.flock",
    }

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in changes and (event != "open" or str(site.root) in str(arguments[0])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    sys.addaudithook(hook)
    os._exit(main(["offsets", "update", "--from-file", str(new), *site.settings]))


class Mirror(BaseHTTPRequestHandler):
    """Serves what the test puts up, by path: status, headers, body."""

    files: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        Mirror.asked.append((self.path, self.headers["If-None-Match"]))
        status, headers, body = self.files.get(self.path, (404, {}, b""))
        if headers.get("ETag", "-") == self.headers["If-None-Match"]:
            status, body = 304, b""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def mirror(authority: Authority) -> Iterator[str]:
    Mirror.files, Mirror.asked = {}, []
    with serving_https(authority, Mirror) as port:
        yield f"https://localhost:{port}"


def put(site: Site, tmp_path: Path, table: bytes, **headers: str) -> None:
    path = site.write(tmp_path / "up.json", table)
    Mirror.files["/t.json"] = (200, headers, table)
    Mirror.files["/t.json.sig"] = (200, {}, path.with_name("up.json.sig").read_bytes())


def direct(mirror: str, authority: Authority) -> list[str]:
    settings = {"mode": "direct", "url": f"{mirror}/t.json", "ca_file": str(authority.ca)}
    return [word for name, value in settings.items() for word in ("--set", f"offsets.update.{name}={value}")]


def test_over_https(site: Site, offsets: Offsets, mirror: str, authority: Authority, tmp_path: Path) -> None:
    put(site, tmp_path, OLD, ETag='"1"')
    words = direct(mirror, authority)
    assert f"{mirror}/t.json: in force now" in offsets("update", "--scheduled", *words).out
    assert Mirror.asked == [("/t.json", None), ("/t.json.sig", None)]
    # The ETag spares the transfer.
    assert "nothing newer" in offsets("update", *words).out
    assert Mirror.asked[2:] == [("/t.json", '"1"')]
    put(site, tmp_path, NEW, ETag='"2"')
    assert offsets("update", *words).status == 0
    assert site.active.read_bytes() == NEW
    # To a closed network.
    carried = tmp_path / "carried.json"
    done = offsets("update", "--download-file", carried, *words)
    assert done.status == 0
    assert f"there: gospan offsets update --from-file {carried.name}\n" in done.out
    assert offsets("update", "--default").status == 0
    assert offsets("update", "--from-file", carried).status == 0
    assert site.active.read_bytes() == NEW


def test_what_goes_wrong_over_https(
    site: Site, offsets: Offsets, mirror: str, authority: Authority, tmp_path: Path
) -> None:
    put(site, tmp_path, OLD)
    words = direct(mirror, authority)
    assert offsets("update", *words).status == 0
    url = f"{mirror}/t.json"
    put(site, tmp_path, NEW)
    good = Mirror.files["/t.json"]

    def fails(reason: str, *more: str) -> None:
        assert offsets("update", *words, *more).failed(reason), offsets("update", *words, *more)
        assert site.active.read_bytes() == OLD

    Mirror.files["/t.json"] = (200, {"Content-Length": str(len(NEW))}, NEW[:20])
    fails(f"{url}: ")  # half a file
    Mirror.files["/t.json"] = (503, {}, b"")
    fails(f"{url}: the server answers 503 Service Unavailable")
    Mirror.files["/t.json"] = (302, {"Location": f"http://{mirror.partition('://')[2]}/t.json"}, b"")
    fails("only https:// is spoken")
    Mirror.files["/t.json"] = (200, {}, b" " * ((16 << 20) + (1 << 16)))
    fails("is larger than 16384 KiB")
    Mirror.files["/t.json"] = (200, {}, table_of("2091-01-01"))
    fails("the table was changed, or cut off")
    Mirror.files["/t.json"] = good
    fails("the server answers 404 Not Found", "--set", f"offsets.update.url={mirror}/missing.json")
    fails(
        "its certificate isn't trusted", "--set", "offsets.update.ca_file=/etc/ssl/certs/ca-certificates.crt"
    )
    fails("Connection refused", "--set", "offsets.update.url=https://127.0.0.1:1/t.json")
    fails("127.0.0.1:1", "--set", "offsets.update.url=https://127.0.0.1:1/t.json")
    del Mirror.files["/t.json.sig"]
    fails(f"{url}.sig: the server answers 404")
    # In a network of its own, which is down.
    command = ["unshare", "--net", sys.executable, "-m", "agent", "offsets", "update", *words, *site.settings]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "Network is unreachable" in done.stderr or "Connection refused" in done.stderr
    assert site.active.read_bytes() == OLD
