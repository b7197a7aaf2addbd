"""Writes Patroni's log as lines of JSON, with the fields of the agent's own.

Patroni's own form of JSON needs a library that the image lacks.
"""


def log_as_json(patroni_logger):
    """Hooks into the class that makes the formatter of Patroni's log."""
    import json
    import logging
    import time

    levels = {"WARNING": "WARN", "CRITICAL": "ERROR"}

    class Lines(logging.Formatter):
        def format(self, record):
            line = {
                "timestamp": "{0}.{1:06d}Z".format(
                    time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)), int(record.created % 1 * 1000000)
                ),
                "level": levels.get(record.levelname, record.levelname),
                "logger": "patroni",
                "target": record.name,
                "message": record.getMessage(),
            }
            if record.exc_info and not record.exc_text:
                record.exc_text = self.formatException(record.exc_info)
            if record.exc_text:
                line["traceback"] = record.exc_text
            return json.dumps(line)

    patroni_logger._get_formatter = lambda self, config: Lines()
