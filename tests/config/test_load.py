"""Sources, precedence and mistakes: what `load` makes of files, environment and flags."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agent.config import (
    AttachWay,
    Compression,
    Config,
    ConfigError,
    Level,
    RpcNames,
    Rule,
    Sampler,
    Selector,
    Sink,
    find_files,
    load,
)
from agent.config.files import key_lines, read_file
from agent.config.render import default_file, show
from agent.config.settings import settings
from tests.commands.conftest import as_nobody
from tests.config.files import complaint, complaints, write


def test_defaults_need_no_file() -> None:
    config = load()
    assert config.export.endpoint == "http://localhost:4317"
    assert config.export.sink is Sink.OTLP
    assert config.sampler.name is Sampler.PARENTBASED_ALWAYS_ON
    assert config.place("export.endpoint") == "default"
    assert config.warnings == ()
    with pytest.raises(FrozenInstanceError):
        config.export.endpoint = "elsewhere"  # type: ignore[misc]


def test_precedence_and_places(tmp_path: Path) -> None:
    main = write(
        tmp_path / "config.toml",
        '[export]\nendpoint = "http://main:1"\ntimeout = "1s"\n'
        "batch_size = 1\nqueue_size = 10\nschedule_delay = 3\n",
    )
    first = write(
        tmp_path / "conf.d" / "10-a.toml",
        '# a comment\n\n[export]\ntimeout = "2s"\nbatch_size = 2\nqueue_size = 20',
    )
    last = write(tmp_path / "conf.d" / "20-b.toml", "[export]\nbatch_size = 3\nqueue_size = 30")
    environ = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "40",
        "GOSPAN_EXPORT_SCHEDULE_DELAY": "2s",
        "OTEL_BSP_SCHEDULE_DELAY": "9",
    }
    files = find_files(main)
    assert files == [main, first, last]
    config = load(files, environ, {"export.endpoint": "collector:9"})
    assert (config.export.endpoint, config.place("export.endpoint")) == ("collector:9", "command line")
    assert (config.export.schedule_delay, config.place("export.schedule_delay")) == (
        2.0,
        "GOSPAN_EXPORT_SCHEDULE_DELAY",
    )
    assert (config.export.queue_size, config.place("export.queue_size")) == (40, "OTEL_BSP_MAX_QUEUE_SIZE")
    assert (config.export.batch_size, config.place("export.batch_size")) == (3, f"{last}:2")
    assert (config.export.timeout, config.place("export.timeout")) == (2.0, f"{first}:4")
    assert config.place("export.headers") == "default"


def test_files_of_others_are_told_with_the_remedy() -> None:
    with TemporaryDirectory() as name:  # pytest's own are for its user alone
        folder = Path(name)
        folder.chmod(0o755)
        config = write(folder / "config.toml", "")
        config.chmod(0o600)
        remedy = "may not be read by you; use sudo, or join the group gospan, which may"
        assert as_nobody(lambda: str(read_file(config).problems[0])) == f"{config}: {remedy}"
        write(folder / "conf.d" / "x.toml", "")
        (folder / "conf.d").chmod(0o700)
        assert as_nobody(lambda: str(find_files(config))) == f"{folder}/conf.d: {remedy}"


def test_find_files_ignores_what_is_not_configuration(tmp_path: Path) -> None:
    main = tmp_path / "config.toml"
    assert find_files(main) == []
    write(tmp_path / "conf.d" / "README", "")
    write(tmp_path / "conf.d" / ".hidden.toml", "")
    drop_in = write(tmp_path / "conf.d" / "x.toml", "")
    assert find_files(main) == [drop_in]


def test_standard_variables() -> None:
    config = load(
        environ={
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://general:4317",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces:4317",
            "OTEL_EXPORTER_OTLP_HEADERS": "API-Key=a%2Cb%20c, other=1",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_INSECURE": "TRUE",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "",
            "OTEL_TRACES_EXPORTER": "console",
            "OTEL_BSP_MAX_QUEUE_SIZE": "4096",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "256",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BSP_EXPORT_TIMEOUT": "30000",
            "OTEL_SERVICE_NAME": "node",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,team=a%3Db",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_SDK_DISABLED": "True",
            "OTEL_LOG_LEVEL": "warn",
            "PATH": "/bin",
        }
    )
    export = config.export
    assert export.endpoint == "https://traces:4317"
    assert export.headers == (("api-key", "a,b c"), ("other", "1"))
    assert export.compression is Compression.GZIP
    assert (export.timeout, export.schedule_delay, export.give_up_after) == (2.5, 0.5, 30.0)
    assert export.insecure
    assert export.sink is Sink.CONSOLE
    assert (export.queue_size, export.batch_size) == (4096, 256)
    assert config.resource.service_name == "node"
    assert config.resource.attributes == (("deployment.environment.name", "prod"), ("team", "a=b"))
    assert (config.sampler.name, config.sampler.arg) == (Sampler.PARENTBASED_TRACEIDRATIO, 0.25)
    assert not config.discovery.enabled
    assert config.log.level is Level.WARNING
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "http/json isn't implemented; use http/protobuf or grpc",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "wants a whole number of milliseconds, not '10s'"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "wants one of always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "wants a number from 0 to 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret-token", "pair 1 isn't one"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=%ff", "pair 2: the percent-encoding"),
        ("GOSPAN_EXPORT_ENDPONT", "x", "there is no such setting; did you mean GOSPAN_EXPORT_ENDPOINT?"),
        ("GOSPAN_DISCOVERY_INCLUDE", "x", "discovery.include can only be set in a file"),
    ],
)
def test_wrong_variables(variable: str, value: str, sentence: str) -> None:
    (only,) = complaints([], {variable: value})
    assert only.startswith(f"{variable}: ")
    assert sentence in only
    assert "secret" not in only


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("rpc", RpcNames.CURRENT),
        ("rpc/dup", RpcNames.BOTH),
        ("http/dup, rpc/dup", RpcNames.BOTH),
        ("http,database", RpcNames.OLD),
    ],
)
def test_opting_into_conventions(value: str, names: RpcNames, tmp_path: Path) -> None:
    """What the variable says nothing of stays as the file has it."""
    path = tmp_path / "config.toml"
    path.write_text('[rpc]\nnames = "old"\n')
    assert load([path], {"OTEL_SEMCONV_STABILITY_OPT_IN": value}).rpc.names is names


def test_other_variables_of_ours_are_a_warning() -> None:
    config = load(environ={"GOSPAN_COLOUR": "blue"})
    assert config.warnings == ("GOSPAN_COLOUR is no setting of gospan and has no effect",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[export]\n\nendpont = 1", ":3: unknown key 'endpont' in [export]; did you mean 'endpoint'?"),
        ("[exprt]\nendpoint = 1", ":1: unknown section [exprt]; did you mean [export]?"),
        ('endpoint = "x"', ":1: unknown key 'endpoint' outside of any section; did you mean it in [export]?"),
        ("\n[log]\nendpoint = 1", ":3: unknown key 'endpoint' in [log]; it belongs in [export]"),
        ("[log]\nzzz = 1", ":2: unknown key 'zzz' in [log]; there are 'level', 'format'"),
        ("export = 1", ":1: export is a section; write [export] on a line of its own, and its keys below"),
        (
            '[export]\nqueue_size = "5"',
            ':2: export.queue_size wants a whole number from 1 to 10000000, not "5"',
        ),
        (
            "[export]\nqueue_size = true",
            ":2: export.queue_size wants a whole number from 1 to 10000000, not true",
        ),
        ("[export]\ninsecure = 1", ":2: export.insecure wants true or false, not 1"),
        ('[export]\ntimeout = "soon"', ":2: export.timeout wants a time such as 2,"),
        ("[export]\ntimeout = nan", ":2: export.timeout wants a time such as 2,"),
        ('[export]\nprotocol = "tcp"', ':2: export.protocol wants one of grpc, http/protobuf, not "tcp"'),
        ('[kernel]\nbuffer_size = "3 tons"', ":2: kernel.buffer_size wants a size such as"),
        ("[kernel]\nbuffer_size = 1", ":2: kernel.buffer_size wants a size such as"),
        ('[libraries]\ndisabled = "a"', ":2: libraries.disabled wants a list of texts"),
        ("[export]\nheaders = { a = 1 }", ":2: export.headers wants a table of texts"),
        ('[export]\nheaders = { "a b" = "1" }', ":2: export.headers 'a b' isn't a header's name"),
        (
            '[export]\nheaders = { grpc-timeout = "1" }',
            ":2: export.headers the header 'grpc-timeout' is reserved",
        ),
        (
            '[export]\nheaders = { key = "hüsh" }',
            ":2: export.headers the value of header 'key' has characters",
        ),
        ("[[discovery.include]]\nexe = 1", ":2: discovery.include selector 1: exe wants text in quotes"),
        ('[discovery]\n\ninclude = [{path = "x"}]', ":3: discovery.include selector 1 has the key 'path'"),
        ("[discovery]\ninclude = [{}]", ":2: discovery.include selector 1 is empty"),
        (
            '[[discovery.include]]\nexe = "/x"\n\n[[discovery.include]]\nuzer = "x"',
            ":5: discovery.include selector 2 has the key 'uzer'; did you mean 'user'?",
        ),
        (
            '[discovery]\nexclude = [\n  { exe = "/x" },\n  { port = "http" },\n]',
            ":4: discovery.exclude selector 2: port wants a whole number from 1 to 65535",
        ),
        (
            "[[discovery.exclude]]\n[discovery.exclude.env]\nA = 1",
            ":2: discovery.exclude selector 1: env wants a",
        ),
        (
            '[[discovery.rules]]\nexe = "/x"',
            ":1: discovery.rules rule 1 changes nothing; it may set service_name",
        ),
        (
            '[[discovery.rules]]\nexe = "/x"\nsampler = "allways_on"',
            ":3: discovery.rules rule 1: sampler wants one of always_on",
        ),
        ("[export\n", ":1: isn't valid TOML: "),
        ("[log]\nlevel = \n", ":2: isn't valid TOML: Invalid value"),
        ("[log]\n[log]\n", ":2: isn't valid TOML: "),
        ('[log]\nlevel = """\n\n', ":4: isn't valid TOML: "),
        (
            "[export]\nbatch_size = 10\nqueue_size = 5",
            ":2: export.batch_size (10) is larger than export.queue_size (5)",
        ),
        ('[export]\nclient_key = "/nowhere"', ":2: export.client_key: /nowhere can't be read: No such file"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, sentence: str) -> None:
    if "client_key" in text:
        lines = complaints([write(tmp_path / "config.toml", text)])
        assert len(lines) == 2
        assert sentence in lines[0]
        assert "export.client_key: needs client_certificate as well" in lines[1]
    else:
        assert complaint(tmp_path, text).startswith(sentence)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.toml", "[export]\ntimeout = true\nnonsense = 1\n[other]")
    broken = write(tmp_path / "b.toml", "[")
    missing = tmp_path / "c.toml"
    binary = tmp_path / "d.toml"
    binary.write_bytes(b"[log]\n\xff")
    directory = tmp_path / "e.toml"
    directory.mkdir()
    lines = complaints(
        [first, broken, missing, binary, directory],
        {"GOSPAN_LOG_LEVEL": "loud"},
        {"export.endpoint": "", "log.x": "1"},
    )
    for start in (
        f"{first}:2: export.timeout wants",
        f"{first}:3: unknown key 'nonsense' in [export]",
        f"{first}:4: unknown section [other]",
        f"{broken}:1: isn't valid TOML",
        f"{missing}: can't be read: No such file or directory",
        f"{binary}:2: isn't UTF-8 text",
        f"{directory}: can't be read: Is a directory",
        "GOSPAN_LOG_LEVEL: log.level wants one of debug, info, warning, error",
        "command line: export.endpoint '' names no host",
        "command line: unknown setting 'log.x'",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert len(lines) == 10


def test_selectors_and_rules(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config.toml",
        '[[discovery.include]]\nexe = "/srv/*"\nuser = "www-data"\n'
        '[[discovery.include]]\ncmdline = "* serve *"\nport = 80\n'
        '[[discovery.exclude]]\nunit = "a@*.service"\n[discovery.exclude.env]\nA = "b*"\n'
        '[[discovery.rules]]\nuser = "shop"\nservice_name = "shop"\nsampler = "traceidratio"\nsampler_arg = 1\n'
        'attributes = { team = "blue" }\nlibraries = ["net/http server"]\n',
    )
    discovery = load([path]).discovery
    assert discovery.include == (
        Selector(exe="/srv/*", user="www-data"),
        Selector(cmdline="* serve *", port=80),
    )
    assert discovery.exclude == (Selector(unit="a@*.service", env=(("A", "b*"),)),)
    assert discovery.rules == (
        Rule(
            user="shop",
            service_name="shop",
            sampler=Sampler.TRACEIDRATIO,
            sampler_arg=1.0,
            attributes=(("team", "blue"),),
            libraries=("net/http server",),
        ),
    )
    again = write(tmp_path / "again.toml", show(load([path])))
    assert load([again]).discovery == discovery


def test_libraries_that_there_are_none_of(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config.toml",
        '[libraries]\nenabled = ["net/htp server"]\n\n'
        '[[discovery.rules]]\nexe = "/x"\nlibraries_disabled = ["nothing of the kind"]\n',
    )
    assert load([path]).libraries.enabled == ("net/htp server",)
    with pytest.raises(ConfigError) as raised:
        load([path], libraries=["net/http server", "database/sql"])
    first, second = str(raised.value).splitlines()
    assert first == (
        f"{path}:2: libraries.enabled names an unknown library 'net/htp server'; did you mean 'net/http server'?"
    )
    assert second == (
        f"{path}:4: discovery.rules: rule 1 names an unknown library 'nothing of the kind'"
        "; there are 'database/sql', 'net/http server'"
    )


def test_warnings(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", '[export]\nheaders = { key = "s3cret" }\n[sampler]\narg = 0.5\n')
    path.chmod(0o644)
    certificate = write(tmp_path / "ca.pem", "x")
    warnings = load([path], {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate)}).warnings
    assert [warning.split(",")[0] for warning in warnings] == [
        "certificates are configured",
        "sampler.arg has no effect with the sampler parentbased_always_on",
        f"{path} has headers",
    ]
    assert "s3cret" not in str(warnings)


def test_key_lines_of_awkward_toml() -> None:
    text = """\
# top = 1
[export]   # comment with ] and "
headers = { "a.b" = "x = y", c = '[z]' }
endpoint = \"\"\"
[not.a.table]
key = 1\"\"\"
'timeout'    = 5   # a = b

[discovery]
include = [
  # comment = 3
  { exe = "]" },
]
scan_interval = 3
[[  discovery . exclude ]]
exe = "x"
[[discovery.exclude]]
exe = "y"
a.b."c d" = 1
"""
    assert key_lines(text) == {
        ("export",): 2,
        ("export", "headers"): 3,
        ("export", "endpoint"): 4,
        ("export", "timeout"): 7,
        ("discovery",): 9,
        ("discovery", "include"): 10,
        ("discovery", "include", 0): 12,
        ("discovery", "scan_interval"): 14,
        ("discovery", "exclude"): 15,
        ("discovery", "exclude", 0): 15,
        ("discovery", "exclude", 0, "exe"): 16,
        ("discovery", "exclude", 1): 17,
        ("discovery", "exclude", 1, "exe"): 18,
        ("discovery", "exclude", 1, "a", "b", "c d"): 19,
    }
    assert key_lines(text.replace("\n", "\r\n")) == key_lines(text)


def test_mutated_files_never_raise_anything_but_a_config_error(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 -- nothing secret
    good = default_file().replace("\n#", "\n").encode()
    path = tmp_path / "config.toml"
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 3)] = chance.choice(
                [b'"', b"[", b"]", b"=", b"\n", b"\xff", b"'''", b"{", b"9"]
            )
        path.write_bytes(data)
        try:
            assert isinstance(load([path]), Config)
            outcomes["loaded"] += 1
        except ConfigError as error:
            assert all(str(problem).startswith(str(path)) for problem in error.problems)
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100


def test_every_setting_can_be_given_by_its_own_variable() -> None:
    config = load(
        environ={"GOSPAN_KERNEL_ATTACH": "tracefs", "GOSPAN_LIBRARIES_DISABLED": "net/http, database/sql"}
    )
    assert config.kernel.attach is AttachWay.TRACEFS
    assert config.libraries.disabled == ("net/http", "database/sql")
    for setting in settings():
        if setting.info.kind.from_text is not None and isinstance(setting.default, int | float | bool):
            text = setting.info.kind.to_toml(setting.default).strip('"')
            config = load(environ={setting.variable: text})
            assert getattr(getattr(config, setting.section), setting.name) == setting.default
            assert config.place(setting.path) == setting.variable
