"""From all sources to one checked configuration that remembers where each value came from."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.config.environment import read_environment
from agent.config.files import Given, Layer, Problem, nearest, read_file
from agent.config.schema import BY_PATH, SECTIONS, Export, Settings, Sink
from agent.config.selectors import Sampler
from agent.config.values import Pairs, PlacedError, check_headers

DEFAULT_FILE = Path("/etc/gospan/config.toml")
HEADERS_CREDENTIAL = "otlp-headers"
_MAX_HEADERS_FILE = 64 << 10


class ConfigError(Exception):
    """The configuration can't be used. Holds every problem found, one line each when written."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Settings):
    """The settings in force, where those came from that aren't defaults, and what is odd but not wrong.

    `places` maps a dotted name to a file and line, an environment variable or the command line.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def place(self, path: str) -> str:
        """Say where the value of a setting came from."""
        return self.places.get(path, "default")


def find_files(main: Path = DEFAULT_FILE) -> list[Path]:
    """List the files to read, in rising precedence: the main one, then conf.d/*.toml beside it, by name.

    A missing main file is normal; a conf.d that can't be listed raises ConfigError.
    """
    drop_ins = main.parent / "conf.d"
    try:
        names = sorted(
            path for path in drop_ins.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")
        )
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise ConfigError([Problem(str(drop_ins), f"can't be read: {error.strerror}")]) from None
    return [path for path in (main, *names) if os.path.lexists(path)]


def load(
    paths: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    *,
    libraries: Collection[str] = (),
) -> Config:
    """Merge defaults, files (the later wins), environment and flags, and check the result.

    `flags` maps dotted names (`export.endpoint`) to text as typed. `libraries` are the names that there are; where
    none are given, names aren't checked. A list or table replaces the one it
    overrides, it isn't added to it. Raises ConfigError with all problems of all sources, overridden ones
    included.
    """
    layers = [read_file(path) for path in paths]
    layers.append(read_environment(environ or {}))
    layers.append(_read_flags(flags or {}))
    problems = [problem for layer in layers for problem in layer.problems]
    warnings = [warning for layer in layers for warning in layer.warnings]

    values: dict[str, object] = {}
    places: dict[str, str] = {}
    for given in (given for layer in layers for given in layer.given):
        try:
            values[given.path] = _parse(given)
        except PlacedError as error:
            problems.append(Problem(given.place_of(error.at), f"{given.path} {error}"))
        except ValueError as error:
            problems.append(Problem(given.place, f"{given.path} {error}"))
        places[given.path] = given.place

    sections: dict[str, object] = {
        name: cls(
            **{path.split(".")[1]: value for path, value in values.items() if path.startswith(f"{name}.")}
        )
        for name, cls in SECTIONS.items()
    }
    config = Config(**sections, places=places)  # type: ignore[arg-type]  # typed by the schema's kinds
    if not problems:
        config = _with_headers_file(config, environ or {}, problems)
    _check(config, problems, warnings)
    if libraries:
        problems += _unknown_libraries(config, libraries)
    if problems:
        raise ConfigError(problems)
    return replace(config, warnings=tuple(warnings))


def _read_flags(flags: Mapping[str, str]) -> Layer:
    layer = Layer()
    for path, text in flags.items():
        if path in BY_PATH:
            layer.given.append(Given(path, text, "command line", is_text=True))
        else:
            layer.problems.append(
                Problem("command line", f"unknown setting {path!r}{nearest(path, list(BY_PATH))}")
            )
    return layer


def _parse(given: Given) -> object:
    kind = BY_PATH[given.path].info.kind
    if not given.is_text:
        return kind.from_toml(given.value)
    if kind.from_text is None:
        raise ValueError("can only be set in a file")
    return kind.from_text(str(given.value))


def _with_headers_file(config: Config, environ: Mapping[str, str], problems: list[Problem]) -> Config:
    """Add the headers of `headers_file`, or of the systemd credential, to those given directly, which win."""
    path = Path(config.export.headers_file) if config.export.headers_file else None
    place = f"{config.place('export.headers_file')}: export.headers_file"
    if path is None and environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(environ["CREDENTIALS_DIRECTORY"], HEADERS_CREDENTIAL)
        place = f"credential {HEADERS_CREDENTIAL}"
        if not path.exists():
            return config
    if path is None:
        return config
    try:
        pairs = read_headers(path)
    except OSError as error:
        problems.append(Problem(place, f"{path} can't be read: {error.strerror}"))
        return config
    except ValueError as error:
        problems.append(Problem(place, f"{path} {error}"))
        return config
    if not pairs:
        return config
    headers = tuple((dict(pairs) | dict(config.export.headers)).items())
    places = dict(config.places)
    places["export.headers"] = ", ".join(filter(None, [places.get("export.headers"), str(path)]))
    return replace(config, export=replace(config.export, headers=headers), places=places)


def read_headers(path: Path) -> Pairs:
    """Read a file of `name: value` lines; empty lines and lines that begin with # don't count.

    Raises OSError, or ValueError with a sentence that repeats no value.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_HEADERS_FILE + 1)
    if len(data) > _MAX_HEADERS_FILE:
        raise ValueError(f"is larger than {_MAX_HEADERS_FILE >> 10} KiB; no collector takes such headers")
    pairs = []
    for number, raw in enumerate(data.splitlines(), start=1):
        line = raw.decode("utf-8", "surrogateescape").strip()
        if not line or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"line {number} isn't `name: value`")
        pairs.append((name.strip(), value.strip()))
    return check_headers(tuple(pairs))


def _check(config: Config, problems: list[Problem], warnings: list[str]) -> None:
    """Check what a single value can't tell: files, and settings that must agree."""
    export = config.export
    for name in ("certificate", "client_key", "client_certificate"):
        problem = _unusable(getattr(export, name))
        if problem:
            problems.append(Problem(config.place(f"export.{name}"), f"export.{name}: {problem}"))
    if bool(export.client_key) != bool(export.client_certificate):
        given, missing = (
            ("client_key", "client_certificate")
            if export.client_key
            else ("client_certificate", "client_key")
        )
        problems.append(
            Problem(
                config.place(f"export.{given}"),
                f"export.{given} needs export.{missing} as well, for mutual TLS",
            )
        )
    if export.batch_size > export.queue_size:
        place = config.place(
            "export.batch_size" if "export.batch_size" in config.places else "export.queue_size"
        )
        text = (
            f"export.batch_size ({export.batch_size}) is larger than export.queue_size ({export.queue_size})"
        )
        problems.append(Problem(place, f"{text}; a batch must fit the queue"))
    if config.offsets.file and (problem := _unusable(config.offsets.file)):
        problems.append(Problem(config.place("offsets.file"), f"offsets.file: {problem}"))
    both = sorted(set(config.libraries.enabled) & set(config.libraries.disabled))
    if both:
        text = (
            f"libraries.disabled names {', '.join(both)}, and so does libraries.enabled; take it out of one"
        )
        problems.append(Problem(config.place("libraries.disabled"), text))
    warnings.extend(_warnings(config))


def _unknown_libraries(config: Config, known: Collection[str]) -> Iterator[Problem]:
    """Find the names of libraries that there are none of: they would have no effect."""
    given = {f"libraries.{key}": getattr(config.libraries, key) for key in ("enabled", "disabled")}
    names = [(path, f"{path} names", listed) for path, listed in given.items()]
    for number, rule in enumerate(config.discovery.rules, start=1):
        listed = (*(rule.libraries or ()), *(rule.libraries_disabled or ()))
        names.append(("discovery.rules", f"discovery.rules: rule {number} names", listed))
    for path, sentence, listed in names:
        for name in listed:
            if name not in known:
                hint = nearest(name, sorted(known), "{!r}")
                yield Problem(config.place(path), f"{sentence} an unknown library {name!r}{hint}")


def _unusable(name: str) -> str | None:
    """Say why a file can't be used, or nothing."""
    if not name:
        return None
    try:
        with Path(name).open("rb") as file:
            return None if file.read(1) else f"{name} is empty"
    except OSError as error:
        return f"{name} can't be read: {error.strerror}"


def _warnings(config: Config) -> list[str]:
    export, warnings = config.export, []
    if export.sink is Sink.OTLP and not uses_tls(export) and (export.certificate or export.client_key):
        warnings.append(
            f"certificates are configured, but {export.endpoint} is sent to without TLS; write https://"
        )
    ratio = config.sampler.name in (Sampler.TRACEIDRATIO, Sampler.PARENTBASED_TRACEIDRATIO)
    if "sampler.arg" in config.places and not ratio:
        warnings.append(f"sampler.arg has no effect with the sampler {config.sampler.name.value}")
    path = config.places.get("export.headers", "").split(":", 1)[0]
    if path.startswith("/") and _world_readable(path):
        warnings.append(
            f"{path} has headers, which may be secrets, and everybody may read it; chmod o= {path}"
        )
    return warnings


def _world_readable(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def uses_tls(export: Export) -> bool:
    """Say whether requests are encrypted: https does, http and unix don't, `insecure` decides for the rest.

    From the OpenTelemetry specification, "OpenTelemetry Protocol Exporter", Insecure: it applies only to an
    endpoint without scheme.
    """
    if export.endpoint.startswith(("http://", "unix:")):
        return False
    return export.endpoint.startswith("https://") or not export.insecure
