"""What gospan-offsets.timer and gospan-offsets.service do under systemd: fetch a table from a server of one's own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from agent.offsets.trust import load_private_key, sign
from tests.package.system import (
    Unexpected,
    call,
    entries,
    eventually,
    expect,
    show,
    systemctl,
)
from tests.support.authority import make_authority, make_signing_key, serving_https

SETTINGS = Path("/etc/gospan/conf.d/60-offsets.toml")
PACKAGED = Path("/usr/share/gospan/offsets.json")
ACTIVE = Path("/var/lib/gospan-offsets/active/offsets.json")
TIMER, SERVICE = "gospan-offsets.timer", "gospan-offsets.service"
DATE = "2090-01-01T00:00:00Z"

# agent/log.py, Event.
UPDATED = "9527bd8fd44147848aa7202565250250"


@contextmanager
def mirror(directory: Path) -> Iterator[tuple[int, list[str]]]:
    """A server with the packaged table under a date to come, signed; gives its port, and the paths it is asked for.

    `ca.pem` and `team.pem` in the directory are its authority and the key to trust.
    """
    private, _ = make_signing_key(directory, "team")
    table = json.dumps(json.loads(PACKAGED.read_text()) | {"generated": DATE}).encode()
    bodies = {"/offsets.json": table, "/offsets.json.sig": sign(table, [load_private_key(private)])}
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            unchanged = self.headers["If-None-Match"] == '"one"'
            body = b"" if unchanged else bodies[self.path]
            self.send_response(304 if unchanged else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"one"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with serving_https(make_authority(directory), Answers) as port:
        yield port, asked


def fetch_by_timer(since: float) -> None:
    """The timer fetches a table over HTTPS from a server of a private authority, as nobody in particular."""
    # Not below /tmp: the services have one of their own.
    with tempfile.TemporaryDirectory(dir=SETTINGS.parents[1]) as name, mirror(Path(name)) as (port, asked):
        # Only root may read them: the service gets them from systemd.
        for one in ("ca.pem", "team.pem"):
            (Path(name) / one).chmod(0o600)
        SETTINGS.write_text(
            "[offsets.update]\n"
            'mode = "direct"\n'
            'schedule = "*:*:0/5"\n'
            f'url = "https://127.0.0.1:{port}/offsets.json"\n'
            f'ca_file = "{name}/ca.pem"\npublic_key = "{name}/team.pem"\n'
        )
        # So that machines don't all come at once, the timer waits for up to half an hour; here there is one.
        drop_in = Path(f"/run/systemd/system/{TIMER}.d/now.conf")
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text("[Timer]\nRandomizedDelaySec=0\nAccuracySec=1ms\n")
        systemctl("reload", "gospan")
        said = call("gospan", "offsets", "schedule")
        expect(f"{TIMER} runs" in said, said)
        _eventually(ACTIVE.exists, "the timer has a table fetched")
        expect(json.loads(ACTIVE.read_text())["generated"] == DATE, "it is the server's")
        _eventually(lambda: len(asked) > 2, "the timer comes again")
        expect(asked[:2] == ["/offsets.json", "/offsets.json.sig"], f"{asked}")
        expect(set(asked[2:]) == {"/offsets.json"}, f"what is unchanged isn't fetched again: {asked}")
        told = call("gospan", "offsets", "show")
        expect(f"from       https://127.0.0.1:{port}/offsets.json, " in told, told)

        systemctl("stop", TIMER)
        owner = ACTIVE.stat().st_uid
        expect(owner and show(SERVICE, "UID") in (str(owner), "[not set]"), f"it belongs to user {owner}")
        users = {
            entry.get("_UID")
            for entry in map(json.loads, call("journalctl", "-o", "json", f"--unit={SERVICE}").splitlines())
            if entry.get("_COMM") == "gospan"
        }
        expect(users and "0" not in users, f"it ran as user {users}")
        eventually(lambda: entries(UPDATED, since=since), "the running gospan takes it")
        [entry] = entries(UPDATED, since=since)
        expect(str(ACTIVE) in entry["MESSAGE"], f"{entry}")

        SETTINGS.unlink()
        said = call("gospan", "offsets", "schedule")
        expect(f"{TIMER} is stopped" in said, said)
        expect(show(TIMER, "ActiveState") == "inactive", "nothing is fetched any more")
        drop_in.unlink()
        drop_in.parent.rmdir()
        systemctl("daemon-reload")


def _eventually(condition: Callable[[], object], what: str) -> None:
    try:
        eventually(condition, what)
    except Unexpected as error:
        told = call("systemctl", "status", "--no-pager", "-l", SERVICE, TIMER, check=False)
        told += call("journalctl", "--no-pager", f"--unit={SERVICE}")
        raise Unexpected(f"{error}\n{told}") from error
