"""Reading a traceparent (bpf/trace_context.h), compiled for this machine, against OpenTelemetry's own propagator."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.support.golang import REPOSITORY

KERNEL = """
#include <stdbool.h>
#include <stdint.h>
typedef uint8_t __u8;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef uint32_t __attribute__((may_alias, aligned(1))) any_u32;
typedef uint64_t __attribute__((may_alias, aligned(1))) any_u64;
#define __always_inline inline __attribute__((always_inline))
static inline __u32 bpf_get_prandom_u32(void) { return 0; }
"""

PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "trace_context.h"

/* A line is a header's value; what is read of it is what the program in the kernel reads. */
int main(void)
{
	static char line[1 << 12];
	struct trace_context found;
	__u8 id[8];

	while (fgets(line, sizeof(line), stdin)) {
		size_t length = strcspn(line, "\\n");
		struct traceparent text = {};
		size_t read = length > TRACEPARENT_LENGTH ? TRACEPARENT_LENGTH + 1 : TRACEPARENT_LENGTH;

		if (length >= TRACEPARENT_LENGTH)
			memcpy(text.version, line, read);
		if (traceparent_parse(&text, length, &found)) {
			for (int i = 0; i < 16; i++)
				printf("%02x", found.trace_id[i]);
			printf(" ");
			for (int i = 0; i < 8; i++)
				printf("%02x", found.span_id[i]);
			printf(" %02x", found.flags);
		}
		printf("\\n");
	}
	random_id(id, sizeof(id));
	return memcmp(id, (__u8[8]){}, 8) ? 0 : 1; /* never all zero, whatever the kernel's random numbers are */
}
"""


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("parser")
    shutil.copy(REPOSITORY / "bpf" / "trace_context.h", made)
    (made / "kernel.h").write_text(KERNEL)
    (made / "parser.c").write_text(PROGRAM)
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-Wno-unknown-pragmas"]
    subprocess.run(["cc", *flags, "parser.c", "-o", "parser"], cwd=made, check=True)
    return made / "parser"


def by_opentelemetry(value: str) -> str:
    found = TraceContextTextMapPropagator().extract({"traceparent": value})
    context = trace.get_current_span(found).get_span_context()
    if not context.is_valid:
        return ""
    return f"{context.trace_id:032x} {context.span_id:016x} {int(context.trace_flags):02x}"


def by_program(parser: Path, values: list[str]) -> list[str]:
    text = "".join(f"{value}\n" for value in values)
    done = subprocess.run(
        [parser],
        input=text.encode("latin-1"),
        capture_output=True,
        check=True,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )
    return done.stdout.decode().split("\n")[:-1]


def compare(parser: Path, values: list[str]) -> int:
    found = by_program(parser, values)
    wanted = [by_opentelemetry(value) for value in values]
    assert [one for one in zip(values, found, wanted, strict=True) if one[1] != one[2]] == []
    return sum(map(bool, wanted))


VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_every_byte_in_every_place(parser: Path) -> None:
    """Spaces around the value are not among them: net/http takes them off before."""
    bytes_ = [
        chr(code) for code in range(1, 256) if chr(code) not in "\n\r \t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"
    ]
    values = [VALID[:at] + byte + VALID[at + 1 :] for at in range(len(VALID)) for byte in bytes_]
    assert compare(parser, values) > len(VALID)


def test_every_length_and_version(parser: Path) -> None:
    values = [(VALID + "-more-of-it")[:length] for length in range(len(VALID) + 12)]
    values += [f"{version:02x}{VALID[2:]}{rest}" for version in range(256) for rest in ("", "-", "-x", "x")]
    assert compare(parser, values) > 3 * 250


def test_random_values(parser: Path) -> None:
    dice = random.Random(4)  # noqa: S311 (reproducible)
    values = []
    for _ in range(20_000):
        fields = [
            "".join(dice.choices("0123456789abcdef", k=length)) if dice.random() > 0.05 else "0" * length
            for length in (2, 32, 16, 2)
        ]
        value = "-".join(["00", *fields[1:]] if dice.random() < 0.5 else fields)
        for _ in range(dice.choice((0, 0, 0, 1, 2))):
            at = dice.randrange(len(value))
            value = value[:at] + dice.choice("0afgAF-xX~\xe9") + value[at + dice.randrange(3) :]
        values.append(value)
    valid = compare(parser, values)
    assert 5_000 < valid < 19_000
