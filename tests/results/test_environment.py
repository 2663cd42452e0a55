"""What a run ran with stands in the log file, and there only."""

from amct_tensorflow import __version__
from amct_tensorflow.log import LOG_FILE, follow_directory
from amct_tensorflow.results.report.reproduction import log_environment


def test_what_is_for_the_file_only_stays_off_the_console(workdir, capsys):
    follow_directory()  # as a run does; other tests may have logged elsewhere
    log_environment({"model_file": "net.pb"}, {"model": "0123"})
    assert capsys.readouterr().err == ""
    log = LOG_FILE.read_text()
    assert f"amct_tensorflow {__version__}, Python " in log and "numpy " in log
    assert "Arguments: model_file='net.pb'" in log and "SHA-256 of the model: 0123" in log
