import pytest

from tests.vm import kernels
from tests.vm.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel", "4.19"], "invalid choice: '4.19'"),
        (["--arch", "s390x"], "invalid choice: 's390x'"),
        (["--env", "NAME"], "NAME: not of the form NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_what_can_t_be_had_is_one_line_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["--kernel", kernels.NAMES[0], "--arch", "amd64"]) == 2
    assert capsys.readouterr().err.startswith("error: missing: apt-get, dpkg-deb")
