"""The environment as a source: the standard OTEL_* variables, and GOSPAN_<SECTION>_<KEY> for every key.

Names, meanings and units follow the OpenTelemetry specification ("Environment Variable Specification" and
"OpenTelemetry Protocol Exporter"): an empty variable counts as unset, times are in milliseconds, a variable
for traces (OTEL_EXPORTER_OTLP_TRACES_*) goes before the one for all signals, and ours go before the standard
ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.config.files import Given, Layer, Problem, nearest
from agent.config.settings import SECTIONS, attribute, settings

_OTLP_SUFFIXES = {
    "ENDPOINT": "export.endpoint",
    "HEADERS": "export.headers",
    "CERTIFICATE": "export.certificate",
    "CLIENT_KEY": "export.client_key",
    "CLIENT_CERTIFICATE": "export.client_certificate",
    "COMPRESSION": "export.compression",
    "TIMEOUT": "export.timeout",
    "INSECURE": "export.insecure",
    "PROTOCOL": "export.protocol",
}

# In rising precedence: a later variable of the same setting replaces an earlier one.
OTEL_VARIABLES: dict[str, str] = {
    **{f"OTEL_EXPORTER_OTLP_{suffix}": path for suffix, path in _OTLP_SUFFIXES.items()},
    **{f"OTEL_EXPORTER_OTLP_TRACES_{suffix}": path for suffix, path in _OTLP_SUFFIXES.items()},
    **{
        f"OTEL_EXPORTER_OTLP_METRICS_{suffix}": f"metrics.{path[7:]}"
        for suffix, path in _OTLP_SUFFIXES.items()
    },
    "OTEL_METRICS_EXPORTER": "metrics.exporters",
    "OTEL_METRIC_EXPORT_INTERVAL": "metrics.interval",
    "OTEL_METRIC_EXPORT_TIMEOUT": "metrics.timeout",
    "OTEL_EXPORTER_PROMETHEUS_HOST": "metrics.prometheus_host",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "metrics.prometheus_port",
    "OTEL_TRACES_EXPORTER": "export.sink",
    "OTEL_BSP_MAX_QUEUE_SIZE": "export.queue_size",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "export.batch_size",
    "OTEL_BSP_SCHEDULE_DELAY": "export.schedule_delay",
    "OTEL_BSP_EXPORT_TIMEOUT": "export.give_up_after",
    "OTEL_SERVICE_NAME": "resource.service_name",
    "OTEL_RESOURCE_ATTRIBUTES": "resource.attributes",
    "OTEL_TRACES_SAMPLER": "sampler.name",
    "OTEL_TRACES_SAMPLER_ARG": "sampler.arg",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "rpc.names",
    "OTEL_SDK_DISABLED": "discovery.enabled",
    "OTEL_LOG_LEVEL": "log.level",
}

_IN_MILLISECONDS = frozenset(
    {
        *("export.timeout", "export.schedule_delay", "export.give_up_after"),
        *("metrics.timeout", "metrics.interval"),
    }
)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Collect what the environment sets, the standard variables first, so that ours override them."""
    layer = Layer()
    for variable, path in OTEL_VARIABLES.items():
        if environ.get(variable, "").strip():
            try:
                text = _translate(path, environ[variable].strip())
                if variable in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
                    text = _without_path(layer, variable, text)
                if text:
                    layer.given.append(Given(path, text, variable, is_text=True))
            except ValueError as error:
                layer.problems.append(Problem(variable, str(error)))
    ours = {setting.variable: setting for setting in settings()}
    for variable, text in sorted(environ.items()):
        setting = ours.get(variable)
        if setting is not None and text.strip():
            layer.given.append(Given(setting.path, text, variable, is_text=True))
        elif setting is None and variable.startswith("GOSPAN_"):
            _unknown(layer, variable)
    layer.warnings.extend(_warnings(environ))
    return layer


def _translate(path: str, text: str) -> str:
    """Turn a standard variable's text into that of our setting, where the two differ; "": it says nothing of it."""
    if path in _IN_MILLISECONDS:
        if not text.isdecimal():
            raise ValueError(f"wants a whole number of milliseconds, not {text!r}")
        return f"{text}ms"
    if path == "discovery.enabled":
        # The specification: only "true", in any case, is true; everything else is false.
        return "false" if text.lower() == "true" else "true"
    if path == "rpc.names":
        # A list of conventions, of which each may be `rpc` (the new names only) or `rpc/dup` (both).
        chosen = {word.strip() for word in text.split(",")}
        return "both" if "rpc/dup" in chosen else "current" if "rpc" in chosen else ""
    if path in ("export.insecure", "metrics.insecure"):
        return "true" if text.lower() == "true" else "false"
    if path in ("export.protocol", "metrics.protocol") and text.lower() == "http/json":
        raise ValueError("http/json isn't implemented; use http/protobuf or grpc")
    return text


def _without_path(layer: Layer, variable: str, text: str) -> str:
    """Split a URL that is to be used as it is, path and all; by gRPC a path is an error that tells of itself."""
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("/")
    if not path:
        return text
    section = "export" if "_TRACES_" in variable else "metrics"
    layer.given.append(Given(f"{section}.path", f"/{path}", variable, is_text=True))
    return f"{scheme}://{host}"


def _unknown(layer: Layer, variable: str) -> None:
    """Complain about a variable that looks like a setting; warn about any other with our prefix."""
    # The longest name first: [offsets.update] before [offsets].
    sections = {f"GOSPAN_{attribute(name).upper()}_": name for name in sorted(SECTIONS, reverse=True)}
    section = next((name for prefix, name in sections.items() if variable.startswith(prefix)), None)
    if section is None:
        layer.warnings.append(f"{variable} is no setting of gospan and has no effect")
        return
    names = [setting.variable.lower() for setting in settings() if setting.section == section]
    hint = nearest(variable, names)
    layer.problems.append(Problem(variable, f"there is no such setting{_upper(hint)}"))


def _upper(hint: str) -> str:
    """Write the variables of a hint as the environment does."""
    return " ".join(word.upper() if word.startswith("gospan_") else word for word in hint.split(" "))


def _warnings(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("OTEL_CONFIG_FILE") or environ.get("OTEL_EXPERIMENTAL_CONFIG_FILE"):
        yield "OpenTelemetry's declarative configuration file (OTEL_CONFIG_FILE) isn't read by gospan"
