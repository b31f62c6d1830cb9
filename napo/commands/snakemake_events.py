"""Snakemake with a log handler of ours, which reports jobs as JSON among Snakemake's own text.

    python -m napo.commands.snakemake_events --snakefile ...      `napo reproduce` starts this

The handler is a logger plugin. It is registered here because Snakemake finds only plugins that are
installed as packages of their own.
"""

from __future__ import annotations

import json
import re
import sys
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

SEPARATOR = "\x1e"  # stands before an event's JSON (RFC 7464), and in no other output

# The fields of each event that `napo.commands.jobs.Jobs` reads.
FIELDS = {
    LogEvent.RUN_INFO: ("stats",),
    LogEvent.JOB_INFO: ("jobid", "rule_name", "wildcards"),
    LogEvent.JOB_FINISHED: ("job_id",),
    LogEvent.JOB_ERROR: ("rule_name", "log", "rule_msg", "aux"),
}
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\d+)")


class LogHandler(LogHandlerBase):
    """Write the text that Snakemake would write, and after it the event."""

    writes_to_stream = True  # instead of Snakemake's own handler
    writes_to_file = False
    has_filter = False  # Snakemake's: --quiet and --verbose keep their meaning
    has_formatter = False
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """Write one record, each line in one call: jobs write to the same pipe."""
        event = getattr(record, "event", None)
        text = self.format(record)
        if text not in ("", "None", None):
            sys.stdout.write(("\n" if event == LogEvent.JOB_INFO else "") + text + "\n")
        if event in FIELDS:
            fields = {name: getattr(record, name) for name in FIELDS[event]}
            self.write({"event": event, **fields})
        elif submitted := SUBMITTED.match(text):  # the SLURM plugin logs it without an event
            number, external = submitted.groups()
            self.write({"event": "submitted", "job_id": int(number), "external": external})
        elif event == LogEvent.ERROR and record.exception == "NapoError":
            sentence = record.getMessage().splitlines()[1].strip()  # below "NapoError in file ..."
            self.write({"event": event, "sentence": sentence})
        sys.stdout.flush()

    def write(self, event: dict[str, Any]) -> None:
        """Write an event on a line of its own."""
        sys.stdout.write(f"{SEPARATOR}{json.dumps(event)}\n")


if __name__ == "__main__":
    from snakemake.cli import main
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_napo", sys.modules[__name__])
    main([*sys.argv[1:], "--logger", "napo"])
