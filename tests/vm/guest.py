"""Run one command in a virtual machine.

The guest sees the host's files (or those of another userland) through virtiofs, under an overlay: it may
write anywhere, and nothing of it stays. Only its results and what is named writable are the host's own.
QEMU emulates the processor (TCG): KVM may be absent, or be a nested one that doesn't run ordinary kernels.
"""

import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.vm import modules, userland
from tests.vm.initramfs import Entry, compress, cpio, directory
from tests.vm.kernels import Kernel
from tests.vm.tools import LEGACY_VIRTIOFSD, VmError, require, virtiofsd

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "build" / "vm"

HOST = "10.0.2.2"
"""The host as a guest with a network sees it (QEMU's user networking); inside.sh gives the guest its own address."""

_MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_rng")
_NETWORK_MODULES = ("virtio_net",)
_PAYLOAD = ("inside.sh", "guest.service")
# panic=-1 makes a panic end QEMU (-no-reboot). The mitigations protect nothing here, and cost time.
_KERNEL_ARGUMENTS = "quiet panic=-1 mitigations=off systemd.getty_auto=no"
# What systemd does at the first boot after /usr was changed (the hardware database, the linker's cache), and about
# devices that the guest hasn't got, takes an emulated processor minutes.
_SYSTEMD_ARGUMENTS = " ".join(
    (
        "systemd.condition-needs-update=no",
        "systemd.mask=e2scrub_reap.service",
        "systemd.mask=systemd-udev-trigger.service",
    )
)


@dataclass(frozen=True, slots=True)
class Machine:
    """How QEMU makes a computer of one architecture."""

    qemu: str
    arguments: tuple[str, ...]
    kind: str
    console: str


# cx16: with QEMU 7.2 and a bare "max", one boot of 6.12 in three ended in a panic; none has since the processor
# doesn't announce this instruction, which kernels can do without. The cause is not established.
# la57: walking five levels of page tables takes longer than four.
# erms, fsrm: a processor that has them is given one instruction to copy any number of bytes, which is emulated byte by
# byte. Without, kernels copy words: two to three times as fast, measured by dd in a tmpfs.
# cortex-a72: later models and "max" have extensions that slow emulation down and that 5.10 doesn't know.
MACHINES = {
    "amd64": Machine(
        "qemu-system-x86_64", ("-cpu", "max,cx16=off,la57=off,erms=off,fsrm=off"), "q35", "ttyS0"
    ),
    "arm64": Machine("qemu-system-aarch64", ("-cpu", "cortex-a72"), "virt", "ttyAMA0"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a command."""

    exit_status: int | None
    """The command's own, as a shell gives it; None when the guest didn't get that far."""
    output: str
    """Standard output and standard error."""
    seconds: float
    """From the start of QEMU to its end."""
    problem: str
    """Why there is no exit status, with the end of the serial log; empty when there is one."""
    directory: Path
    """Holds serial.log, output, and whatever the command put into $GOSPAN_RESULTS."""


def run(
    kernel: Kernel,
    command: Sequence[str],
    *,
    timeout: float = 120,
    memory: int = 2048,
    cpus: int = 2,
    env: Mapping[str, str] | None = None,
    cwd: Path = PROJECT,
    writable: Sequence[Path] = (),
    results: Path | None = None,
    systemd: bool = False,
    land: userland.Userland | None = None,
    network: bool = False,
) -> Result:
    """Boot `kernel`, run `command` in `cwd` as root, without standard input, and power off.

    `python` in `command` is the interpreter that has the project's dependencies. The environment is a small
    fixed one plus `env`; it has GOSPAN_VM (the kernel's name) and GOSPAN_RESULTS (a directory shared with the
    host: `results`, emptied first; by default build/vm/<kernel>-<arch>). `writable` names further directories
    of the host that the guest may change. `timeout` is in seconds from the start of QEMU, `memory` in MiB.
    With `systemd` the guest is a Debian 12 booted by systemd, and the command runs when that is done; with `land`
    as well it is that one, whose systemd boots it. With `network` it reaches the ports of the host's loopback at
    HOST, as itself.

    A guest that doesn't finish gives a Result without an exit status.
    Raises VmError when it can't be started at all.
    """
    machine = MACHINES[kernel.arch]
    require(machine.qemu, "setpriv")
    land = land or userland.of(kernel.arch, PROJECT, systemd=systemd)
    name = f"{kernel.name}-{kernel.arch}{'-systemd' if systemd else ''}"
    directory = (results or RESULTS / name).absolute()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shares = [directory, *land.writable, *writable]
    for share in shares:
        share.mkdir(parents=True, exist_ok=True)
    shared = [(f"share{index}", path, "auto") for index, path in enumerate(shares)]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "GOSPAN_VM": kernel.name,
        "GOSPAN_RESULTS": str(directory),
        **land.env,
        **(env or {}),
    }
    archive = _initramfs(
        kernel,
        busybox=userland.busybox(kernel.arch).read_bytes(),
        network=network,
        settings={
            "lower": str(land.root),
            "visible": _words(land.visible),
            "writable": _words(shares),
            "results": str(directory),
            "started": str(int(time.time())),
            "hostname": f"gospan-{kernel.name}",
            "init": "/lib/systemd/systemd" if systemd else "",
        },
        command=_script(command, cwd=cwd, environment=environment),
    )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gospan-vm-")))
        (scratch / "initramfs").write_bytes(archive)
        sockets: list[Path] = []
        # The host's files are taken as unchanging: looking each of them up again would double the time of an
        # import.
        for tag, path, caching in (("host", Path("/"), "always"), *shared):
            sockets.append(scratch / tag)
            log = directory / f"virtiofsd-{tag}.log"
            stack.enter_context(_serving(path, at=sockets[-1], cache=caching, log=log))
        arguments = [
            *_hardware(machine, memory=memory, cpus=cpus, shares=sockets),
            *(("-nic", "user,model=virtio-net-pci") if network else ()),
            *("-serial", f"file:{directory / 'serial.log'}"),
            *("-kernel", str(kernel.vmlinuz), "-initrd", str(scratch / "initramfs")),
            *(
                "-append",
                f"console={machine.console} {_KERNEL_ARGUMENTS} {_SYSTEMD_ARGUMENTS if systemd else ''}",
            ),
        ]
        begin = time.monotonic()
        problem = _qemu(arguments, timeout=timeout, log=directory / "qemu.log")
        seconds = time.monotonic() - begin
    return _result(directory, seconds=seconds, problem=problem)


def _hardware(machine: Machine, *, memory: int, cpus: int, shares: Sequence[Path]) -> list[str]:
    """QEMU's command line for a computer with `shares`: file systems, each tagged by its socket's name."""
    arguments = [
        *(machine.qemu, "-M", f"{machine.kind},memory-backend=memory", *machine.arguments),
        *("-accel", "tcg,thread=multi", "-smp", str(cpus), "-m", str(memory)),
        # virtiofsd reads and writes the guest's memory, so that this has to be shared.
        *("-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"),
        *("-device", "virtio-rng-pci"),
    ]
    for at in shares:
        arguments += ["-chardev", f"socket,id={at.name},path={at}"]
        arguments += ["-device", f"vhost-user-fs-pci,chardev={at.name},tag={at.name}"]
    return arguments


def _initramfs(
    kernel: Kernel, *, busybox: bytes, network: bool, settings: Mapping[str, str], command: str
) -> bytes:
    here = Path(__file__).parent
    loaded = modules.collect(kernel.modules, (*_MODULES, *(_NETWORK_MODULES if network else ())))
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    return compress(
        cpio(
            [
                Entry("busybox", busybox),
                Entry("init", (here / "init.sh").read_bytes()),
                directory("guest"),
                *(Entry(f"guest/{name}", (here / name).read_bytes()) for name in _PAYLOAD),
                Entry("guest/settings", "".join(lines).encode()),
                Entry("guest/command", command.encode()),
                directory("guest/modules"),
                *(
                    # The shell's order of names is the order of loading.
                    Entry(f"guest/modules/{index:02d}-{name}.ko", content)
                    for index, (name, content) in enumerate(loaded.items())
                ),
            ]
        )
    )


def _words(paths: Sequence[Path]) -> str:
    """Paths as a shell's words; one with a space in it would not survive."""
    for path in paths:
        if shlex.quote(str(path)) != str(path):
            raise VmError(f"{path}: the path of a shared directory may hold no spaces or special characters")
    return " ".join(map(str, paths))


def _script(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> str:
    variables = [f"{name}={value}" for name, value in environment.items()]
    return f"cd {shlex.quote(str(cwd))} && exec {shlex.join(['/usr/bin/env', '-i', *variables, *command])}\n"


@contextmanager
def _serving(path: Path, *, at: Path, cache: str, log: Path) -> Iterator[None]:
    """Serve the directory `path` to a guest on the socket `at`; `cache` is virtiofsd's caching policy."""
    program = virtiofsd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, log.open("wb") as output:
        listener.bind(str(at))
        listener.listen()
        command = [str(program), f"--fd={listener.fileno()}"]
        if program == LEGACY_VIRTIOFSD:
            command += ["-o", f"source={path},cache={cache},sandbox=chroot", "-f"]
        else:
            command += [f"--shared-dir={path}", f"--cache={cache}", "--sandbox=chroot", *_whole_tree(program)]
        server = _start(command, log=output, pass_fds=(listener.fileno(),))
    try:
        yield
    finally:
        _stop(server)


def _whole_tree(program: Path) -> list[str]:
    """The option to show mounts in the shared tree as plain directories; overlayfs takes no others.

    Versions that don't know the option show them so anyway.
    """
    option = "--no-announce-submounts"
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=30)
    return [option] if option in usage.stdout else []


def _qemu(arguments: Sequence[str], *, timeout: float, log: Path) -> str:
    """Run QEMU to its end; what is wrong with that end, if anything is."""
    with log.open("wb") as output:
        qemu = _start(arguments, log=output)
    try:
        status = qemu.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"no end after {timeout:g} s"
    finally:
        _stop(qemu)
    return f"QEMU failed ({status}): {log.read_text(errors='replace').strip()}" if status else ""


def _start(command: Sequence[str], *, log: BinaryIO, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    # pdeathsig: nothing stays behind even when this process is killed. An own session: the terminal's
    # interrupt comes to this process alone, which then ends the others in order.
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _result(directory: Path, *, seconds: float, problem: str) -> Result:
    output, status = (_text(directory / name) for name in ("output", "status"))
    exit_status = int(status) if status.strip().isdecimal() else None
    if exit_status is None:
        serial = "\n".join(_text(directory / "serial.log").splitlines()[-25:])
        problem = (
            f"{problem or 'the guest ended without an exit status'}; the end of its serial log:\n{serial}"
        )
    else:
        problem = ""
    return Result(exit_status, output, seconds, problem, directory)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
