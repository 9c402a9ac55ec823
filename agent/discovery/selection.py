"""Who is traced, and how: the configuration's selectors and rules, applied to processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from agent.config import Config, Resources, Rule, Sampling, Selector
from agent.discovery import processes
from agent.discovery.headers import WantedHeaders, wanted_headers
from agent.discovery.ports import listening_ports
from agent.libraries import LIBRARIES
from agent.libraries.grpc_propagation import GRPC_PROPAGATION
from agent.libraries.http1_propagation import HTTP1_PROPAGATION
from agent.libraries.http2_propagation import HTTP2_PROPAGATION
from agent.libraries.kafka_go_propagation import KAFKA_GO_PROPAGATION
from agent.sampling import own_sampling
from agent.spans.resource import unit_of

_MAX_ENVIRON = 6 << 20
"""Bytes; Linux bounds arguments and environment together to that (fs/exec.c, bprm_stack_limits)."""


class Candidate:
    """A process as selectors see it: /proc is read for what they ask for, once.

    Of one that ended, or may not be looked at, everything but the path is empty.
    """

    def __init__(self, pid: int, exe: str, procfs: Path = Path("/proc")) -> None:
        self.exe = exe
        self._pid = pid
        self._procfs = procfs

    @cached_property
    def _owner(self) -> processes.Owner:
        return processes.owner(self._pid, self._procfs) or processes.Owner("", "", -1)

    @property
    def cmdline(self) -> str:
        """The arguments, joined by blanks."""
        return self._owner.command_line

    @property
    def user(self) -> str:
        """The name of the user that it acts as."""
        return self._owner.user

    @property
    def uid(self) -> int | None:
        """The number of that user."""
        return self._owner.uid

    @cached_property
    def unit(self) -> str:
        """The systemd service that it belongs to."""
        return unit_of(self._read("cgroup").decode("utf-8", "surrogateescape").splitlines())

    @cached_property
    def ports(self) -> frozenset[int]:
        """The TCP ports that it listens on now."""
        return listening_ports(self._pid, str(self._procfs))

    @cached_property
    def environ(self) -> Mapping[str, str]:
        """The environment that it was started with; of two variables of a name the first, as in Go's os.Getenv."""
        found: dict[str, str] = {}
        for entry in self._read("environ").split(b"\0"):
            name, equals, value = os.fsdecode(entry).partition("=")
            if equals:
                found.setdefault(name, value)
        return found

    def _read(self, name: str) -> bytes:
        try:
            with (self._procfs / str(self._pid) / name).open("rb") as file:
                return file.read(_MAX_ENVIRON)
        except OSError:
            return b""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is decided of a process: whether it is traced, else `why` not, and how.

    `libraries_off` are the names of the libraries that are off for it, each with the reason; `headers` those of
    HTTP that its spans have. `sampler_is_given` where
    a rule names a sampler: then the process's own environment doesn't count. `sampler_ignored` says what of that
    can't be heeded.
    """

    why: str
    resource: Resources
    sampling: Sampling
    libraries_off: Mapping[str, str]
    sampler_is_given: bool = False
    sampler_ignored: str = ""
    headers: WantedHeaders = field(default_factory=WantedHeaders)

    @property
    def wanted(self) -> bool:
        """Whether it is traced."""
        return not self.why


def by_own_environment(choice: Choice, process: Candidate) -> Choice:
    """Give the choice with the sampler that the process asks for in its own environment, unless a rule names one."""
    if choice.sampler_is_given or not choice.wanted:
        return choice
    sampling, ignored = own_sampling(process.environ, choice.sampling)
    return replace(choice, sampling=sampling, sampler_ignored=ignored)


class Selection:
    """Decides by the configuration. Processes for which the same rule counts get the same Choice.

    `cannot_write` is why nothing can be written into programs, where that is so.
    """

    def __init__(self, config: Config, *, cannot_write: str = "") -> None:
        self._config = config
        self._choices = {
            rule: Choice(
                why="",
                resource=_resource(config, rule),
                sampling=_sampling(config, rule),
                libraries_off=_libraries_off(config, rule, cannot_write),
                headers=wanted_headers(config.http, rule),
                sampler_is_given=rule is not None and (rule.sampler, rule.sampler_arg) != (None, None),
            )
            for rule in (None, *config.discovery.rules)
        }
        discovery = config.discovery
        every: tuple[Selector, ...] = (*discovery.include, *discovery.exclude, *discovery.rules)
        self.by_port = any(selector.port is not None for selector in every)
        """Whether anything depends on the ports that processes listen on, which change."""

    @property
    def headers(self) -> frozenset[WantedHeaders]:
        """What spans of any process shall have of headers."""
        return frozenset(choice.headers for choice in self._choices.values())

    def of(self, process: Candidate) -> Choice:
        """Decide about a process."""
        discovery = self._config.discovery
        left_out = next((one for one in discovery.exclude if one.matches(process)), None)
        included = not discovery.include or any(one.matches(process) for one in discovery.include)
        if why := self._why_not(left_out, included=included):
            return self.refused(why)
        return self._choices[next((rule for rule in discovery.rules if rule.matches(process)), None)]

    def of_path(self, exe: str) -> Choice | None:
        """Decide about all processes of an executable; None where more than its path has to be known."""
        discovery = self._config.discovery
        excluded = [(one, one.matches_path(exe)) for one in discovery.exclude]
        included = [one.matches_path(exe) for one in discovery.include]
        left_out = next((one for one, matches in excluded if matches), None)
        if left_out is not None or (included and not any(one is not False for one in included)):
            return self.refused(self._why_not(left_out, included=left_out is not None))
        if any(matches is None for _, matches in excluded) or (included and True not in included):
            return None
        if why := self._why_not(None, included=True):
            return self.refused(why)
        for rule in discovery.rules:
            matches = rule.matches_path(exe)
            if matches is not False:
                return self._choices[rule] if matches else None
        return self._choices[None]

    def libraries_off(self, exe: str) -> dict[str, str]:
        """Give the libraries that no process of an executable wants, each with the reason."""
        choices: list[Choice] = []
        for rule in self._config.discovery.rules:
            matches = rule.matches_path(exe)
            if matches is not False:
                choices.append(self._choices[rule])
            if matches:
                break
        else:
            choices.append(self._choices[None])
        first, *others = choices
        return {
            name: reason
            for name, reason in first.libraries_off.items()
            if all(name in one.libraries_off for one in others)
        }

    def _why_not(self, left_out: Selector | None, *, included: bool) -> str:
        """Say why a process is not wanted; nothing where it is."""
        if not self._config.discovery.enabled:
            return f"tracing is turned off by discovery.enabled ({self._config.place('discovery.enabled')})"
        if left_out is not None:
            return f"discovery.exclude has {left_out} ({self._config.place('discovery.exclude')})"
        if not included:
            return f"nothing in discovery.include matches it ({self._config.place('discovery.include')})"
        return ""

    def refused(self, why: str) -> Choice:
        """Give the choice not to trace, for this reason."""
        return replace(self._choices[None], why=why)


def _sampling(config: Config, rule: Rule | None) -> Sampling:
    sampling = config.sampler
    if rule and rule.sampler is not None:
        sampling = replace(sampling, name=rule.sampler)
    if rule and rule.sampler_arg is not None:
        sampling = replace(sampling, arg=rule.sampler_arg)
    return sampling


def _resource(config: Config, rule: Rule | None) -> Resources:
    resource = config.resource
    if rule and rule.service_name is not None:
        resource = replace(resource, service_name=rule.service_name)
    if rule and rule.attributes is not None:
        attributes = tuple((dict(resource.attributes) | dict(rule.attributes)).items())
        resource = replace(resource, attributes=attributes)
    return resource


def _libraries_off(config: Config, rule: Rule | None, cannot_write: str) -> dict[str, str]:
    """Give the libraries that are off, with the reason. A rule that names any replaces both general lists."""
    enabled, disabled = config.libraries.enabled, config.libraries.disabled
    by_disabled, by_enabled = "libraries.disabled", "libraries.enabled"
    if rule and (rule.libraries is not None or rule.libraries_disabled is not None):
        enabled, disabled = rule.libraries or (), rule.libraries_disabled or ()
        by_disabled = "libraries_disabled of a rule in discovery.rules"
        by_enabled = "libraries of a rule in discovery.rules"
    off = disabled_libraries(enabled, disabled, by_enabled=by_enabled, by_disabled=by_disabled)
    sent = config.propagation
    for library, written, name in (
        (HTTP1_PROPAGATION, sent.http1, "http1"),
        (HTTP2_PROPAGATION, sent.http2, "http2"),
    ):
        if not sent.connections and (cannot_write or not written):
            by_configuration = f"it is turned off by propagation.{name} and propagation.connections"
            off.setdefault(library.name, cannot_write if written else by_configuration)
    for library, written, name in (
        (GRPC_PROPAGATION, sent.grpc, "grpc"),
        (KAFKA_GO_PROPAGATION, sent.kafka, "kafka"),
    ):
        if cannot_write or not written:
            off.setdefault(
                library.name, cannot_write if written else f"it is turned off by propagation.{name}"
            )
    return off


def disabled_libraries(
    enabled: Iterable[str],
    disabled: Iterable[str],
    *,
    by_enabled: str = "libraries.enabled",
    by_disabled: str = "libraries.disabled",
) -> dict[str, str]:
    """Give the libraries that two lists turn off, with the reason: `disabled` names it, or `enabled` only others."""
    enabled, disabled = frozenset(enabled), frozenset(disabled)
    found: dict[str, str] = {}
    for library in LIBRARIES:
        if library.name in disabled:
            found[library.name] = f"it is turned off by {by_disabled}"
        elif enabled and library.name not in enabled:
            found[library.name] = f"{by_enabled} does not list it"
    return found
