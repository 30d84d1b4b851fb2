"""The server's log: lines for people, or JSON for machines."""

from __future__ import annotations

import datetime
import json
import logging

FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, and what the record brings as `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {
            **getattr(record, "facts", {}),
            "at": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, sort_keys=True, default=str)


def set_up_logs(form: str) -> None:
    """Send our messages, and the warnings of others, to the standard error.

    Args:
        form: text or json.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("eul_serve").setLevel(logging.INFO)
    # A line for each call is for machines; people would not see the rest for it.
    logging.getLogger("eul_serve.calls").setLevel(logging.INFO if form == "json" else logging.WARNING)
