"""The part of `gospan offsets` that fetches, installs, takes back and publishes tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands import EXIT_OK, CommandError, settings
from agent.config import Config, OffsetsUpdate, UpdateMode
from agent.offsets.active import Tables, credential, public_keys, tables_of
from agent.offsets.source import Fetched, FetchError, read_file
from agent.offsets.store import Store, StoreError
from agent.offsets.table import Table, TableError, parse

if TYPE_CHECKING:
    from agent.offsets.registry import Credentials
    from agent.offsets.trust import PublicKeys

_UPDATE = """\
Fetches a table and its signature, checks them, and puts them in force. Without an option that
says otherwise, from where the configuration has it ([offsets.update]). A running gospan takes
the new table by itself.

Nothing is changed unless everything is in order: the signature by a trusted key, the form of
the table, its date (not older than what is in force), and that all of it is on the disk."""


def add_arguments(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions to the command line."""
    update = actions.add_parser(
        "update", help="fetch a newer table and put it in force", description=_UPDATE, formatter_class=_RAW
    )
    source = update.add_mutually_exclusive_group()
    source.add_argument("--url", metavar="URL", help="fetch it there, over HTTPS")
    source.add_argument("--image", metavar="REFERENCE", help="pull it from a registry")
    source.add_argument(
        "--from-file", metavar="FILE", type=Path, help="take it from a file, with FILE.sig beside it"
    )
    source.add_argument(
        "--default", action="store_true", help="put the table in force that came with this gospan"
    )
    source.add_argument(
        "--scheduled",
        action="store_true",
        help="as gospan-offsets.service does: nothing at all if offsets.update.mode is off",
    )
    update.add_argument(
        "--download-file",
        metavar="FILE",
        type=Path,
        help="only fetch and check it, into FILE and FILE.sig, to carry it to a closed network",
    )
    update.add_argument(
        "--force", action="store_true", help="take it even if it is older, or was rolled back"
    )
    settings.add_file_arguments(update)
    update.set_defaults(action=_update)

    rollback = actions.add_parser("rollback", help="put the table in force that was before the last update")
    settings.add_file_arguments(rollback)
    rollback.set_defaults(action=_rollback)

    schedule = actions.add_parser(
        "schedule",
        help="have systemd fetch tables as the configuration says, or no longer",
        description=(
            "Writes what [offsets.update] says for gospan-offsets.timer and .service, and starts or stops the"
            " timer. To be run after each change of that section."
        ),
    )
    schedule.add_argument("--print", action="store_true", help="only print what would be written")
    schedule.add_argument(
        "--units",
        metavar="DIR",
        type=Path,
        default=Path("/etc/systemd/system"),
        help="where units are (default: %(default)s)",
    )
    settings.add_file_arguments(schedule)
    schedule.set_defaults(action=_schedule)

    publish = actions.add_parser("publish", help="sign a table and write what a mirror or a registry needs")
    publish.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        action="append",
        required=True,
        help="sign with this private key (PEM, Ed25519); may be repeated",
    )
    publish.add_argument("--table", metavar="FILE", type=Path, help="default: the one that came with gospan")
    publish.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="where to put the files; it is made"
    )
    publish.add_argument(
        "--compression", choices=("gzip", "zstd"), default="gzip", help="of the image (default: %(default)s)"
    )
    publish.add_argument("--tag", default="latest", help="of the image (default: %(default)s)")
    publish.set_defaults(action=_publish)


_RAW = argparse.RawDescriptionHelpFormatter


def _update(arguments: argparse.Namespace) -> int:
    config = settings.config_or_error(arguments)
    tables = tables_of(config)
    if arguments.scheduled and config.offsets_update.mode is UpdateMode.OFF:
        _say("offsets.update.mode is off: nothing is fetched")
        return EXIT_OK
    store = _store(tables)
    if arguments.default:
        return _default(tables, store)
    # Only who updates needs what tells good signatures from others.
    from agent.offsets.update import RefusedError, check, take

    keys = _keys(config)
    if arguments.download_file:
        return _download(arguments, config, keys)
    try:
        with store.locked():
            receipt = store.receipt(store.active)
            origin, fetch = _source(arguments, config.offsets_update)
            known = receipt.tag if receipt and receipt.origin == origin and not arguments.force else ""
            fetched = fetch(known)
            if fetched is None:
                _say(f"{origin}: nothing newer than the table in force")
                return EXIT_OK
            newest = tables.in_force().table
            changed = take(fetched, keys, store, newest.generated if newest else None, force=arguments.force)
            table, _ = check(fetched, keys)
    except (FetchError, RefusedError, StoreError) as error:
        raise CommandError(str(error)) from None
    what = contents(table)
    _say(f"{origin}: {'in force now' if changed else 'already in force'}: {dated(table)}, {what}")
    return EXIT_OK


def _download(arguments: argparse.Namespace, config: Config, keys: PublicKeys) -> int:
    """Fetch and check a table for somebody else."""
    from agent.offsets.update import RefusedError, check

    path: Path = arguments.download_file
    _, fetch = _source(arguments, config.offsets_update)
    try:
        fetched = fetch("")
        if fetched is None:
            return EXIT_OK
        table, _ = check(fetched, keys)
        # The signature first: a table without one is of no use.
        for target, data in ((path.with_name(f"{path.name}.sig"), fetched.signature), (path, fetched.table)):
            unfinished = target.with_name(f".{target.name}")
            unfinished.write_bytes(data)
            unfinished.replace(target)
    except (FetchError, RefusedError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    _say(f"{path} and {path}.sig: {dated(table)}, {contents(table)}")
    _say(f"there: gospan offsets update --from-file {path.name}")
    return EXIT_OK


def _default(tables: Tables, store: Store) -> int:
    try:
        with store.locked():
            store.reset()
    except StoreError as error:
        raise CommandError(str(error)) from None
    _say(f"{tables.own} is in force, the table that came with this gospan")
    return EXIT_OK


def _rollback(arguments: argparse.Namespace) -> int:
    from agent.offsets.update import digest

    tables = tables_of(settings.config_or_error(arguments))
    store = _store(tables)
    try:
        with store.locked():
            if not store.fingerprint():
                raise CommandError("no update is in force, so there is nothing to go back from")
            store.rollback(digest(store.read(store.active).table))
    except (StoreError, FetchError) as error:
        raise CommandError(str(error)) from None
    found = tables.in_force()
    if found.table is None:
        raise CommandError(*found.complaints)
    _say(f"{found.path} is in force again: {dated(found.table)}, {contents(found.table)}")
    return EXIT_OK


def _schedule(arguments: argparse.Namespace) -> int:
    from agent.offsets.units import UnitsError, apply, drop_ins

    config = settings.config_or_error(arguments)
    files = drop_ins(config.offsets_update, config.offsets.directory)
    if arguments.print:
        for name, text in files.items():
            _say(f"# {arguments.units / name}\n{text}")
        if not files:
            _say("nothing would be written: offsets.update has no mode, or no schedule")
        return EXIT_OK
    try:
        for line in apply(files, arguments.units):
            _say(line)
    except UnitsError as error:
        raise CommandError(str(error)) from None
    return EXIT_OK


def _publish(arguments: argparse.Namespace) -> int:
    from agent.offsets.publish import Compression, publish
    from agent.offsets.trust import TrustError, load_private_key, sign
    from agent.paths import packaged_offsets

    path: Path = arguments.table or packaged_offsets()
    try:
        keys = [load_private_key(key) for key in arguments.key]
        data = path.read_bytes()
        table = parse(data)
        publish(
            table,
            data,
            sign(data, keys),
            arguments.output,
            Compression(arguments.compression),
            arguments.tag,
        )
    except TrustError as error:
        raise CommandError(str(error)) from None
    except TableError as error:
        raise CommandError(f"{path}: {error}") from None
    except OSError as error:
        raise CommandError(f"{error.filename or arguments.output}: {error.strerror}") from None
    _say(f"{arguments.output}: {dated(table)}, {contents(table)}")
    _say("  offsets.json, offsets.json.sig   for a web server")
    _say(f"  image                            skopeo copy oci:{arguments.output}/image docker://...")
    return EXIT_OK


def _source(
    arguments: argparse.Namespace, update: OffsetsUpdate
) -> tuple[str, Callable[[str], Fetched | None]]:
    """Where a table is fetched from, and how: a function of what is known of it already (Fetched.tag)."""
    if arguments.from_file:
        return str(arguments.from_file), lambda _: read_file(arguments.from_file)
    url, image = arguments.url, arguments.image
    if not url and not image:
        if update.mode is UpdateMode.IMAGE or not update.url:
            image = update.image
        else:
            url = update.url
    ca_file = credential(update.ca_file, "offsets-ca")
    if url:
        from agent.offsets.download import fetch

        return url, lambda known: fetch(url, etag=known, ca_file=ca_file)
    if image:
        from agent.offsets.registry import pull

        return image, lambda known: pull(
            image, credentials=_credentials(update), ca_file=ca_file, known=known
        )
    raise CommandError(
        "there is nowhere to fetch a table from: set offsets.update.url, or give --url, --image or --from-file"
    )


def _credentials(update: OffsetsUpdate) -> Credentials:
    from agent.offsets.registry import Credentials

    path = credential(update.password_file, "offsets-password")
    try:
        password = Path(path).read_text().rstrip("\n") if path else ""
    except (OSError, ValueError) as error:
        raise FetchError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    return Credentials(update.username, password, credential(update.docker_config, "offsets-docker-config"))


def _keys(config: Config) -> PublicKeys:
    from agent.offsets.trust import TrustError, load_public_keys

    try:
        return load_public_keys(public_keys(config))
    except TrustError as error:
        raise CommandError(str(error)) from None


def _store(tables: Tables) -> Store:
    if tables.store is None:
        raise CommandError(f"offsets.file is set to {tables.own}: that is in force, and updates have no say")
    return tables.store


def contents(table: Table) -> str:
    """Say in a few words how much is in a table."""
    modules = table.modules.values()
    versions = sum(len(one.versions) for one in modules)
    unavailable = sum(len(one.unavailable) for one in modules)
    fields = sum(len(one.fields) for one in modules)
    without = f", {unavailable} that can't be built" if unavailable else ""
    return f"{fields} fields, {versions} versions of {len(modules)} modules{without}"


def dated(table: Table) -> str:
    """Say of when a table is."""
    return f"of {table.generated:%Y-%m-%d %H:%M} UTC"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
