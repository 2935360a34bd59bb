"""What the tests of parts share."""

from __future__ import annotations

import pytest

from kvstore.kvctl.main import main
from tests.unit.kvctl_calls import Done, Kvctl


@pytest.fixture
def kvctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kvctl:
    """Calls kvctl with its arguments; errors become exit codes as in its own process."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["kvctl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Done(int(ended.value.code or 0), output.out, output.err)

    return call
