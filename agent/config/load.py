"""From all sources to one checked configuration that remembers where each value came from."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from agent.config.choices import Sink, UpdateMode
from agent.config.destination import (
    HEADERS_CREDENTIAL,
    DestinationError,
    check_files,
    complete,
    headers_source,
    unusable,
    uses_tls,
)
from agent.config.environment import read_environment
from agent.config.exporting import Destination
from agent.config.files import Given, Layer, Problem, nearest, read_file, unreadable
from agent.config.schema import Settings
from agent.config.selectors import Sampler
from agent.config.settings import BY_PATH, SECTIONS, attribute
from agent.config.values import PlacedError

DEFAULT_FILE = Path("/etc/gospan/config.toml")


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
        raise ConfigError([Problem(str(drop_ins), unreadable(error))]) from None
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
        attribute(name): cls(
            **{
                path.rpartition(".")[2]: value
                for path, value in values.items()
                if path.rpartition(".")[0] == name
            }
        )
        for name, cls in SECTIONS.items()
    }
    config = Config(**sections, places=places)  # type: ignore[arg-type]  # typed by the schema's kinds
    if not problems:
        config = _complete(config, environ or {}, problems)
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


def _complete(config: Config, environ: Mapping[str, str], problems: list[Problem]) -> Config:
    """Complete the destinations: ports, and headers that lie in files, which is where they came from as well."""
    export, places = config.export, dict(config.places)
    problems += [_about(config, "export.", error) for error in check_files(export)]
    try:
        is_default = "export.endpoint" not in places
        export = complete(export, is_default=is_default, environ=environ, credential=HEADERS_CREDENTIAL)
        source = headers_source(export, environ, HEADERS_CREDENTIAL)
        if source is not None and export.headers != config.export.headers:
            places["export.headers"] = ", ".join(filter(None, [places.get("export.headers"), str(source)]))
    except DestinationError as error:
        problems.append(_about(config, "export.", error))
    also = []
    for number, destination in enumerate(export.also, start=1):
        before = f"export.also: destination {number}: "
        problems += [_about(config, before, error) for error in check_files(destination)]
        try:
            also.append(complete(destination, is_default=False, environ=environ))
        except DestinationError as error:
            problems.append(_about(config, before, error))
    config = replace(config, export=replace(export, also=tuple(also)), places=places)
    return config if problems else _complete_metrics(config, environ, problems)


def _complete_metrics(config: Config, environ: Mapping[str, str], problems: list[Problem]) -> Config:
    """Let metrics go where spans go, unless they have an endpoint of their own.

    Then only what was said for all signals (OTEL_EXPORTER_OTLP_*) holds for them too.
    """
    export, metrics = config.export, config.metrics
    own = bool(metrics.endpoint)
    if not own and export.sink is not Sink.OTLP:
        return config
    inherited = {}
    for item in fields(Destination):
        place = config.place(f"export.{item.name}")
        general = place.startswith("OTEL_EXPORTER_OTLP_") and not place.startswith(
            "OTEL_EXPORTER_OTLP_TRACES_"
        )
        if f"metrics.{item.name}" not in config.places and item.name != "path" and (general or not own):
            inherited[item.name] = getattr(export, item.name)
    metrics = replace(metrics, **inherited)
    problems += [_about(config, "metrics.", error) for error in check_files(metrics)]
    try:
        metrics = complete(metrics, is_default=False, environ=environ)
    except DestinationError as error:
        problems.append(_about(config, "metrics.", error))
    return replace(config, metrics=metrics)


def _about(config: Config, before: str, error: DestinationError) -> Problem:
    """Say where a destination's problem is; `before` is the section with a dot, or a list's element."""
    if error.key.startswith("credential "):
        return Problem(error.key, str(error))
    path = before.partition(":")[0] if ":" in before else f"{before}{error.key}"
    between = " " if error.key == "endpoint" else ": "
    return Problem(config.place(path), f"{before}{error.key}{between}{error}")


def _check(config: Config, problems: list[Problem], warnings: list[str]) -> None:
    """Check what a single value can't tell: files, and settings that must agree."""
    export = config.export
    if export.batch_size > export.queue_size:
        place = config.place(
            "export.batch_size" if "export.batch_size" in config.places else "export.queue_size"
        )
        text = (
            f"export.batch_size ({export.batch_size}) is larger than export.queue_size ({export.queue_size})"
        )
        problems.append(Problem(place, f"{text}; a batch must fit the queue"))
    if config.offsets.file and (problem := unusable(config.offsets.file)):
        problems.append(Problem(config.place("offsets.file"), f"offsets.file: {problem}"))
    update = config.offsets_update
    wanted = {UpdateMode.DIRECT: "url", UpdateMode.IMAGE: "image"}.get(update.mode)
    if wanted and not getattr(update, wanted):
        text = f"offsets.update.mode is {update.mode.value}, and offsets.update.{wanted} is missing"
        problems.append(Problem(config.place("offsets.update.mode"), text))
    for name in ("ca_file", "password_file", "docker_config", "public_key"):
        if problem := unusable(getattr(update, name)):
            place = config.place(f"offsets.update.{name}")
            problems.append(Problem(place, f"offsets.update.{name}: {problem}"))
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


def _warnings(config: Config) -> list[str]:
    export, warnings = config.export, []
    warnings += [
        f"certificates are configured, but {one.endpoint} is sent to without TLS; write https://"
        for one in (export, *export.also)
        if export.sink is Sink.OTLP and not uses_tls(one) and (one.certificate or one.client_key)
    ]
    if config.offsets_update.schedule and config.offsets_update.mode is UpdateMode.OFF:
        warnings.append("offsets.update.schedule has no effect with offsets.update.mode off")
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
