from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent.config import (
    Config,
    Discovery,
    Libraries,
    Propagation,
    Resources,
    Rule,
    Sampler,
    Sampling,
    Selector,
)
from agent.discovery.ports import listening_ports
from agent.discovery.selection import Candidate, Choice, Selection, disabled_libraries
from agent.libraries.grpc_propagation import GRPC_PROPAGATION
from agent.libraries.http1_propagation import HTTP1_PROPAGATION
from agent.libraries.http2_propagation import HTTP2_PROPAGATION
from agent.libraries.kafka_go_propagation import KAFKA_GO_PROPAGATION

LIBRARY = "net/http server"
EVERYWHERE = Propagation(http1=True, http2=True, grpc=True, kafka=True)
UNIT = "0::/system.slice/system-shop.slice/shop@1.service\n"


@pytest.fixture
def procfs(tmp_path: Path) -> Path:
    """A made-up /proc: process 7 is a server, 8 has ended."""
    process = tmp_path / "proc" / "7"
    (process / "net").mkdir(parents=True)
    (process / "fd").mkdir()
    (process / "cmdline").write_bytes(b"shop\0--mode\0serve all\0")
    (process / "status").write_bytes(b"Name:\tshop\nUid:\t0\t4242\t4242\t4242\n")
    (process / "cgroup").write_text(UNIT)
    (process / "environ").write_bytes(b"STAGE=prod\0EMPTY=\0STAGE=test\0NAME=a=b\0odd\0")
    head = (
        b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    row = b"   %d: %s:%04X 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 100 0\n"
    local, six = b"0100007F", b"00000000000000000000000001000000"
    (process / "net" / "tcp").write_bytes(
        head
        + row % (0, local, 8080, b"0A", 501)
        + row % (1, local, 9090, b"0A", 999)  # another process's
        + row % (2, local, 7070, b"01", 502)  # a connection
    )
    (process / "net" / "tcp6").write_bytes(head + row % (0, six, 443, b"0A", 503))
    for number, link in enumerate(
        ("/dev/null", "socket:[501]", "socket:[502]", "socket:[503]", "pipe:[999]")
    ):
        (process / "fd" / str(number)).symlink_to(link)
    return tmp_path / "proc"


@pytest.fixture
def shop(procfs: Path) -> Candidate:
    return Candidate(7, "/srv/shop/bin/shop", procfs)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (Selector(exe="/srv/*"), True),
        (Selector(exe="/srv/*/shop"), True),
        (Selector(exe="*/SHOP"), False),
        (Selector(exe="/srv/shop"), False),
        (Selector(cmdline="shop --mode serve*"), True),
        (Selector(cmdline="serve"), False),
        (Selector(user="4242"), True),
        (Selector(user="0"), False),
        (Selector(unit="shop@*.service"), True),
        (Selector(unit="shop"), False),
        (Selector(port=8080), True),
        (Selector(port=443), True),
        (Selector(port=9090), False),
        (Selector(port=7070), False),
        (Selector(env=(("STAGE", "pro?"),)), True),
        (Selector(env=(("STAGE", "test"),)), False),  # the first one counts
        (Selector(env=(("EMPTY", ""),)), True),
        (Selector(env=(("EMPTY", "?*"),)), False),
        (Selector(env=(("MISSING", "*"),)), False),
        (Selector(env=(("NAME", "a=b"), ("STAGE", "*"))), True),
        (Selector(exe="/srv/*", port=80), False),
        (Selector(exe="/srv/*", port=8080, unit="shop@1.service"), True),
    ],
    ids=str,
)
def test_selectors(shop: Candidate, selector: Selector, matches: bool) -> None:
    assert selector.matches(shop) is matches
    choices = [
        Selection(Config(discovery=discovery)).of(shop)
        for discovery in (Discovery(include=(selector,)), Discovery(exclude=(selector,)))
    ]
    assert [choice.wanted for choice in choices] == [matches, not matches]


def test_of_a_process_that_ended_only_the_path_is_known(procfs: Path) -> None:
    ended = Candidate(8, "/srv/x", procfs)
    assert (ended.cmdline, ended.user, ended.unit, ended.ports, ended.environ) == (
        "",
        "",
        "",
        frozenset(),
        {},
    )
    assert Selector(exe="/srv/*").matches(ended)
    assert not Selector(user="root").matches(ended)


def test_the_reason_names_the_selector_and_its_place(shop: Candidate) -> None:
    places = {"discovery.exclude": "/etc/gospan/config.toml:7", "discovery.include": "/etc/a.toml:1"}
    exclude = Discovery(exclude=(Selector(exe="/other"), Selector(exe="/srv/*", port=8080)))
    assert Selection(Config(discovery=exclude, places=places)).of(shop).why == (
        'discovery.exclude has { exe = "/srv/*", port = 8080 } (/etc/gospan/config.toml:7)'
    )
    include = Discovery(include=(Selector(exe="/other"),))
    assert Selection(Config(discovery=include, places=places)).of(shop).why == (
        "nothing in discovery.include matches it (/etc/a.toml:1)"
    )
    off = Selection(Config(discovery=Discovery(enabled=False)))
    assert off.of(shop).why == "tracing is turned off by discovery.enabled (default)"
    assert off.of_path("/x") == off.of(shop)


def test_the_first_rule_that_matches_counts(shop: Candidate) -> None:
    config = Config(
        sampler=Sampling(name=Sampler.TRACEIDRATIO, arg=0.5),
        resource=Resources(service_name="all", attributes=(("a", "1"), ("b", "2"))),
        libraries=Libraries(disabled=(LIBRARY,)),
        propagation=EVERYWHERE,
        discovery=Discovery(
            rules=(
                Rule(exe="/other", service_name="wrong"),
                Rule(unit="shop@*", sampler_arg=0.25, attributes=(("b", "3"),), libraries=(LIBRARY,)),
                Rule(exe="*", service_name="late"),
            )
        ),
    )
    assert Selection(config).of(shop) == Choice(
        why="",
        resource=Resources(service_name="all", attributes=(("a", "1"), ("b", "3"))),
        sampling=Sampling(name=Sampler.TRACEIDRATIO, arg=0.25),
        libraries_off=disabled_libraries((LIBRARY,), (), by_enabled="libraries of a rule in discovery.rules"),
        sampler_is_given=True,
    )
    assert LIBRARY not in Selection(config).of(shop).libraries_off
    other = Selection(config).of_path("/other")
    assert other is not None
    assert other.resource.service_name == "wrong"
    assert other.libraries_off == {LIBRARY: "it is turned off by libraries.disabled"}


@pytest.mark.parametrize(
    ("discovery", "path", "wanted"),
    [
        (Discovery(), "/x", True),
        (Discovery(exclude=(Selector(exe="/x"),)), "/x", False),
        (Discovery(exclude=(Selector(exe="/x"),)), "/y", True),
        (Discovery(exclude=(Selector(exe="/x", user="a"),)), "/x", None),
        (Discovery(exclude=(Selector(user="a"), Selector(exe="/x"))), "/x", False),
        (Discovery(include=(Selector(exe="/x"),)), "/x", True),
        (Discovery(include=(Selector(exe="/x"),)), "/y", False),
        (Discovery(include=(Selector(exe="/y", port=1),)), "/x", False),
        (Discovery(include=(Selector(port=1),)), "/x", None),
        (Discovery(include=(Selector(port=1), Selector(exe="/x"))), "/x", True),
        (Discovery(include=(Selector(exe="/x"),), exclude=(Selector(env=(("A", "*"),)),)), "/x", None),
        (Discovery(rules=(Rule(port=1, service_name="a"),)), "/x", None),
        (Discovery(rules=(Rule(exe="/y", port=1, service_name="a"),)), "/x", True),
        (Discovery(rules=(Rule(exe="/x", service_name="a"), Rule(port=1, service_name="b"))), "/x", True),
    ],
)
def test_what_a_path_decides(discovery: Discovery, path: str, wanted: bool | None) -> None:
    choice = Selection(Config(discovery=discovery)).of_path(path)
    assert (None if choice is None else choice.wanted) == wanted


def test_libraries_that_no_process_of_a_file_wants() -> None:
    on, off = Rule(user="a", libraries=(LIBRARY,)), Rule(exe="/x", libraries_disabled=(LIBRARY,))
    everywhere = Libraries(disabled=(LIBRARY,))

    def libraries_off(*rules: Rule, libraries: Libraries | None = None) -> dict[str, str]:
        config = Config(
            discovery=Discovery(rules=rules), libraries=libraries or Libraries(), propagation=EVERYWHERE
        )
        return Selection(config).libraries_off("/x")

    assert libraries_off() == {}
    assert LIBRARY in libraries_off(libraries=everywhere)
    assert libraries_off(on, libraries=everywhere) == {}
    assert libraries_off(Rule(exe="/y", user="a", libraries=(LIBRARY,)), libraries=everywhere) != {}
    assert libraries_off(off) == {
        LIBRARY: "it is turned off by libraries_disabled of a rule in discovery.rules"
    }
    assert libraries_off(on, off) == {}
    assert libraries_off(off, on) != {}


def test_where_nothing_can_be_written_what_only_writes_is_off() -> None:
    def off(propagation: Propagation) -> dict[str, str]:
        return Selection(
            Config(propagation=propagation), cannot_write="the kernel is locked down"
        ).libraries_off("/x")

    only_write = {"grpc propagation", "kafka-go propagation"}
    assert off(EVERYWHERE) == dict.fromkeys(only_write, "the kernel is locked down")
    told = off(Propagation(kafka=False, http1=False, connections=False))
    assert told == {
        "HTTP/1 propagation": "it is turned off by propagation.http1 and propagation.connections",
        "HTTP/2 propagation": "the kernel is locked down",
        "grpc propagation": "the kernel is locked down",
        "kafka-go propagation": "it is turned off by propagation.kafka",
    }


def test_disabled_libraries_are_told_with_the_reason() -> None:
    assert disabled_libraries((), ()) == {}
    assert disabled_libraries((LIBRARY,), ()).keys().isdisjoint({LIBRARY})
    assert disabled_libraries((), (LIBRARY,)) == {LIBRARY: "it is turned off by libraries.disabled"}
    assert disabled_libraries(("other",), ())[LIBRARY] == "libraries.enabled does not list it"


def test_only_ports_change() -> None:
    assert not Selection(
        Config(discovery=Discovery(include=(Selector(exe="/x", env=(("A", "b"),)),)))
    ).by_port
    assert Selection(Config(discovery=Discovery(rules=(Rule(port=80, service_name="x"),)))).by_port


def test_the_ports_of_this_process() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server6,
    ):
        ports = {server.getsockname()[1], server6.getsockname()[1]}
        assert ports <= listening_ports(os.getpid())
    assert not ports & listening_ports(os.getpid())
    assert listening_ports(2**22 + 1) == frozenset()


def test_what_writes_and_joins_nothing_is_off() -> None:
    def off(propagation: Propagation) -> set[str]:
        return set(Selection(Config(propagation=propagation)).libraries_off("/x"))

    kafka, grpc = {KAFKA_GO_PROPAGATION.name}, {GRPC_PROPAGATION.name}
    assert off(Propagation()) == set()
    assert off(Propagation(http1=False, http2=False)) == set()
    assert off(Propagation(http1=False, http2=False, kafka=False)) == kafka
    assert off(Propagation(http1=False, http2=False, grpc=False, kafka=False)) == kafka | grpc
    assert off(Propagation(http2=False, connections=False)) == {HTTP2_PROPAGATION.name}
    assert off(Propagation(http1=False, connections=False)) == {HTTP1_PROPAGATION.name}
