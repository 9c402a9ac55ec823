"""The configuration in writing: the effective one, the commented default file, and the reference's tables.

`python -m agent.config.render FILE DOCUMENT` brings the default file and the reference up to date.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from agent.config.environment import OTEL_VARIABLES
from agent.config.exporting import Destination
from agent.config.load import Config
from agent.config.settings import SECTIONS, Setting, settings
from agent.config.values import Pairs

HIDDEN = "***"
_WIDTH = 100
_TABLES = re.compile(r"(<!-- settings: begin -->\n).*(<!-- settings: end -->\n)", re.DOTALL)


def summary(section: str) -> str:
    """Say in a sentence what a section is about."""
    return (SECTIONS[section].__doc__ or "").strip().splitlines()[0]


def _value(setting: Setting, value: object) -> str:
    if setting.info.secret and isinstance(value, tuple):
        value = tuple(
            replace(one, headers=_hidden(one.headers)) if isinstance(one, Destination) else _hidden((one,))[0]
            for one in value
        )
    return setting.info.kind.to_toml(value)


def _doc(setting: Setting) -> str:
    """Say what a setting means, and whether a change waits for a restart."""
    return f"{setting.info.doc} Needs a restart." if setting.info.restart else setting.info.doc


def show(config: Config) -> str:
    """Write the effective configuration as TOML, each value with where it came from. Secrets are hidden."""
    lines: list[str] = []
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            lines += [*([""] if lines else []), f"[{section}]"]
        value = _value(setting, setting.of(config))
        lines.append(f"{setting.name} = {value}  # {config.place(setting.path)}")
    return "\n".join(lines) + "\n"


def _hidden(headers: Pairs) -> Pairs:
    return tuple((name, HIDDEN) for name, _ in headers)


def default_file() -> str:
    """Write the file as installed: every key, commented out, with its default and its meaning."""
    lines = [
        "# gospan's configuration. Every setting is shown with its default; take away the # to change one.",
        "# Files in conf.d/*.toml override this one, the environment overrides both, flags override all.",
        "# `gospan check --show-config` prints what is in force, and where each value came from.",
    ]
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            lines += ["", "", f"# {summary(section)}", f"[{section}]"]
        lines.append("")
        doc, kind = _doc(setting), setting.info.kind.name
        if kind.startswith("one of "):
            doc = f"{doc} {kind[0].upper()}{kind[1:]}."
        lines += textwrap.wrap(doc, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"#{setting.name} = {_value(setting, setting.default)}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Write the reference's tables, in Markdown, one for each section."""
    standard: dict[str, list[str]] = {}
    for variable, path in OTEL_VARIABLES.items():
        standard.setdefault(path, []).append(variable)
    lines: list[str] = []
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            lines += [
                *([""] if lines else []),
                f"### [{section}]",
                "",
                summary(section),
                "",
                "| key | kind | default | meaning | standard variable |",
                "|---|---|---|---|---|",
            ]
        cells = [
            f"`{setting.name}`",
            setting.info.kind.name,
            f"`{_value(setting, setting.default)}`",
            _doc(setting).replace("|", "\\|"),
            ", ".join(f"`{variable}`" for variable in standard.get(setting.path, [])),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def update_document(text: str) -> str:
    """Replace the tables between the two markers of the reference."""
    return _TABLES.sub(lambda match: f"{match[1]}{reference()}{match[2]}", text)


def _main(file: Path, document: Path) -> None:
    file.write_text(default_file())
    document.write_text(update_document(document.read_text()))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
