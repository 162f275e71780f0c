"""HTML pages about runs, measured checkpoints and a reproduced study; their figures; the console table."""

from crossclass.report.page import write_report

__all__ = ["write_report"]
