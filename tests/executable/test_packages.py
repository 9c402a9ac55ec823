"""Programs built by others must be read as well as our own."""

import pytest

from agent.executable import Executable
from tests.executable import truth
from tests.executable.packages import go_programs
from tests.executable.test_buildinfo import printed
from tests.executable.test_structs import layout
from tests.support import golang
from tests.support.golang import VERSIONS

PACKAGES = ("caddy", "docker-registry", "etcd-server")

STRUCTS = (
    "net/http.Request",
    "net/http.response",
    "net/http.conn",
    "net/url.URL",
    "runtime.g",
    "bufio.Writer",
    "net.TCPConn",
)
FUNCTIONS = (
    "net/http.serverHandler.ServeHTTP",
    "net/http.(*response).finishRequest",
    "net/http.(*conn).close",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_servers_of_the_distribution(package: str) -> None:
    programs = go_programs(package)
    assert programs
    for program in programs:
        with Executable(str(program)) as executable:
            info = executable.build_info
            assert executable.known_layout
            lines = golang.go_tool("version", "-m", str(program)).rstrip("\n").split("\n")
            assert [line.replace('"', "").rstrip("\t") for line in lines[1:]] == [
                line.rstrip("\t") for line in printed(info)
            ]
            # The same minor release, built by us: layouts don't change in patch releases.
            go = next(go for go in VERSIONS if go.split(".")[1] == str(info.minor))
            dwarf = truth.structs(golang.build("allstd", go=go, mode="plain"))
            for name, struct in executable.structs(STRUCTS).items():
                assert layout(struct) in dwarf[name], name
            assert len(executable.structs(STRUCTS)) == len(STRUCTS)
            functions = executable.functions(FUNCTIONS)
            assert functions.keys() == set(FUNCTIONS)
            for (function,) in functions.values():
                assert executable.entry_place(function).emulated
                assert executable.return_places(function)
            assert len(executable.itabs()) > 500
            assert len(executable.all_structs()) > 1000
