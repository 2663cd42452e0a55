"""What the files of a report are called; they stand beside the quantized model."""

REPORT_PAGE = "report.html"
REPORT_NUMBERS = "report.json"
