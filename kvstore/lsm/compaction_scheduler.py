"""Scheduling compactions: which are due, and which run."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kvstore.lsm.compaction import Choice, choose, everything
from kvstore.lsm.config import Options
from kvstore.lsm.messages import CompactionJob
from kvstore.lsm.table_set import TableSet


class CompactionScheduler:
    """A table is an input of one compaction at most at a time; one that is fenced is an input of none."""

    def __init__(
        self,
        directory: str,
        options: Options,
        tables: TableSet,
        take_number: Callable[[], int],
    ) -> None:
        self._directory = directory
        self._options = options
        self._tables = tables
        self._take_number = take_number
        self._busy: set[int] = set()
        self._running = 0
        self.changed = True
        """Whether there may be something to choose: tables have come or gone since the last choice."""
        self.rewrites: set[int] = set()
        """Tables with damaged blocks that are left out, to be written anew without them."""

    def due(self) -> list[CompactionJob]:
        """What should be started now: rewrites, and as many compactions at a time as the options say."""
        jobs = self._rewrites_due() if self.rewrites else []
        if self.changed:
            self.changed = False
            while self._running < self._options.compactions and (choice := self._choice()):
                jobs.append(self._job(choice))
        return jobs

    def _choice(self) -> Choice | None:
        left_alone = self._busy | self._tables.quarantine.tables() | self.rewrites
        return choose(self._tables.levels.infos(), left_alone, self._options)

    def _rewrites_due(self) -> list[CompactionJob]:
        """Tables to be written anew without the blocks that are left out, once no fence is left in them."""
        due = self.rewrites - self._tables.quarantine.tables() - self._busy
        return [
            self._job(Choice((table.info,), table.info.level, False), table.left_out)
            for table in self._tables.levels
            if table.info.number in due
        ]

    def full(self) -> CompactionJob | None:
        """Merge all tables into one run; None when there is nothing to gain. No other may be under way."""
        infos = self._tables.levels.infos()
        choice = everything(infos, self._options) if infos else None
        done = choice and len(infos) == 1 and infos[0].level == choice.level and not infos[0].deletions
        return self._job(choice) if choice and not done else None

    def _job(self, choice: Choice, left_out: tuple[int, ...] = ()) -> CompactionJob:
        self._running += 1
        self._busy.update(info.number for info in choice.inputs)
        size = sum(info.size for info in choice.inputs)
        count = 1 if choice.level == 0 else size // self._options.table_bytes + 2
        outputs = tuple(self._take_number() for _ in range(count))
        return CompactionJob(
            self._directory,
            choice.inputs,
            choice.level,
            choice.drop_deletions,
            outputs,
            self._options,
            left_out,
        )

    def over(self, job: CompactionJob) -> None:
        """A compaction is done, or has failed: its inputs may be chosen again, if they are still there."""
        self._running -= 1
        self._busy.difference_update(info.number for info in job.inputs)
        self.changed = True

    def forget(self, tables: Collection[int]) -> None:
        """These are gone."""
        self.rewrites.difference_update(tables)
