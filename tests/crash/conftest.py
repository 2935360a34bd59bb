"""The workloads of these tests have small tables: their small parts are small, too."""

from __future__ import annotations

import pytest

from tests.crash.power_loss_writer import WRITE_BACK_BYTES


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are written back several times before they are done."""
    monkeypatch.setattr("kvstore.lsm.sstable_writer.WRITE_BACK_BYTES", WRITE_BACK_BYTES)
