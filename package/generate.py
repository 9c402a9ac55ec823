"""`python -m package.generate TREE DATE`: write manual pages and shell completions into a staged tree.

A process of its own, because it imports the agent of the tree: defaults that depend on where gospan is installed are
then those of an installation, not of this checkout.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/gospan",
    "zsh": "usr/share/zsh/vendor-completions/_gospan",
    "fish": "usr/share/fish/vendor_completions.d/gospan.fish",
}
"""Where each shell looks for what packages bring (bash-completion's README, zsh's and fish's documentation)."""


def main(tree: Path, date: str) -> None:
    """Write all of them."""
    sys.path.insert(0, str(tree / "usr/lib/gospan"))
    import shtab

    from agent.cli import COMMANDS, make_parser
    from package import manual

    for name, text in (("gospan.1", manual.gospan_1(date)), ("gospan.toml.5", manual.gospan_toml_5(date))):
        path = tree / f"usr/share/man/man{name[-1]}/{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without name and time, the same text is the same file.
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    parser = make_parser(*(command.name for command in COMMANDS))
    for shell, place in COMPLETIONS.items():
        path = tree / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shtab.complete(parser, shell))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
