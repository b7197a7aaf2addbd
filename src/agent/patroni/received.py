"""Keeps what a standby has received until it is archived, from its promotion on (docs/decisions/0035).

A standby takes a segment that it has streamed for archived, whether the leader has archived it or not. Right after
a promotion PostgreSQL makes a checkpoint, which removes such segments; so they are marked before. The archive takes a
segment twice if it is the same.
"""

import os
import re

# The mark of a whole segment, or of the history of a timeline, that counts as archived.
DONE = re.compile(r"([0-9A-F]{24}|[0-9A-F]{8}\.history)\.done")


def mark_received(wal):
    """Lets PostgreSQL archive the segments in the folder `wal`; returns their number."""
    status, marked = os.path.join(wal, "archive_status"), 0
    for name in os.listdir(status):
        found = DONE.fullmatch(name)
        if not found or not os.path.exists(os.path.join(wal, found[1])):
            continue
        try:
            os.rename(os.path.join(status, name), os.path.join(status, found[1] + ".ready"))
            marked += 1
        except FileNotFoundError:
            # A restartpoint has just removed it.
            continue
    return marked


def keep_received(postgresql, log):
    """Marks them before each promotion."""
    before = postgresql._pre_promote

    def pre_promote(self):
        try:
            marked = mark_received(self.wal_dir)
            log.info("%d files of WAL are archived again, or for the first time", marked)
        except OSError as error:
            # The agent looks up what is missing, and reports it.
            log.warning("%s: what a former leader has not archived may be removed", error)
        return before(self)

    postgresql._pre_promote = pre_promote
