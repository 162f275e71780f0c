"""Warnings stand in front of the numbers that they are about: of a checkpoint and of a comparison."""

from pathlib import Path

from crossclass.report import write_report
from report_files import FOREIGN, compared, page_text, write_results

INPUTS = {"n": 400, "split": "test", "taken": "none", "as_loaded": "cifar10", "accuracy_as_loaded": 0.479}


def test_warnings_come_before_the_numbers(tmp_path: Path, undrawn: None) -> None:
    one = {**FOREIGN[0], "warnings": ["odd inputs"], "inputs": {**INPUTS, "accuracies": {"none": 0.601}}}
    text = page_text(write_report([write_results(tmp_path, [one])], tmp_path / "one.html"))
    assert text.index("odd inputs") < text.index("Robust accuracy")
    assert "none 60.1%" in text
    both = compared(warnings=["first: odd inputs"])
    path = write_results(tmp_path, [one, FOREIGN[1], both])
    text = page_text(write_report([path], tmp_path / "both.html"))
    assert text.index("odd inputs") < text.index("In brackets")
    assert text.count("odd inputs") == 1  # both are one comparison, and it is told once
