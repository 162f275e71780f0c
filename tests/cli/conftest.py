"""What tests of the command line share."""

import pytest

from crossclass.cli import main


@pytest.fixture
def call(capsys):
    """Run a command line; returns exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main(arguments)
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    return run
