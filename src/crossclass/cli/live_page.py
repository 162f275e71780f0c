"""The page of a run while it is trained, which reads itself anew.

A process of the lowest priority draws it after a check, so that training does not wait: never two at once,
and so rarely that after the first one they take at most `SHARE` of the time of one core. Whatever goes wrong
there is not the run's concern.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crossclass.core.launch_environment import is_main_process

SHARE = 0.01
"""Of the time since the last drawing began."""
REFRESH = 30
"""Seconds after which an open page reads itself anew."""
PATIENCE = 5.0
"""Seconds that the end of a run waits for a drawing that is going on, before it is ended."""
_DRAW = """
import os, sys
try:
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except (AttributeError, OSError):
    pass
from pathlib import Path
from crossclass.report import write_report
write_report([Path(sys.argv[1])], live=int(sys.argv[2]))
print(sum(os.times()[:2]))
"""


class LivePage:
    """Draws the page of one run again and again."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.folder = Path()
        self.began, self.cost = -float("inf"), 0.0

    def update(self, folder: Path) -> bool:
        """Begin to draw the page, if none is being drawn and it is time; whether it was begun."""
        if not is_main_process() or self._drawing() or time.monotonic() - self.began < self.cost / SHARE:
            return False
        with contextlib.suppress(OSError):  # no memory or process for it
            self.began, self.folder = time.monotonic(), folder
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _DRAW, str(folder.absolute()), str(REFRESH)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                start_new_session=True,  # an interrupt of the run does not leave a broken drawing's trace
            )
            return True
        return False

    def _drawing(self) -> bool:
        if self.process is None:
            return False
        if self.process.poll() is None:
            return True
        self._ended()
        return False

    def _ended(self) -> None:
        assert self.process is not None
        self.cost = 10.0  # if it failed, or does not say
        with contextlib.suppress(ValueError, OSError):
            self.cost = float(self.process.communicate()[0])
        self.process = None

    def close(self) -> None:
        """Wait until nothing is drawn, so that no older page replaces the last one."""
        if self.process is None:
            return
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # the last page is drawn by the run itself
            number = self.process.pid
            self.process.kill()
            self.process.wait()
            for half in self.folder.glob(f".*.{number}.tmp"):
                half.unlink(missing_ok=True)
        self._ended()


def final_page(folder: Path, log: Callable[[str], None]) -> None:
    """Write the page of a finished run; a failure is told, and is not the run's."""
    if not is_main_process():
        return
    try:
        from crossclass.report import write_report

        write_report([folder])
    except Exception as e:  # the run is finished, whatever its page is
        log(f"the page could not be written ({e}); 'crossclass report {folder}' tries again")
