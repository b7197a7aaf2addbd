"""Limits Patroni's log to changes.

In each loop Patroni logs that it took no action, with the leader. The message is logged when it
changes, or follows another message, and is not repeated.
"""


def log_news_alone(logger):
    """Hooks into the logger of Patroni's loop, whose messages are the loops' results."""
    last = None

    def is_news(record):
        nonlocal last
        message, before = record.getMessage(), last
        last = message
        return message != before or not message.startswith("no action. ")

    logger.addFilter(is_news)
