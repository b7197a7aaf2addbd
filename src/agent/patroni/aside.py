"""Keeps a replica's data directory beside its clone (docs/decisions/0033).

Patroni removes a data directory before it clones the leader into its place. Until the clone streams,
the leader alone has the rows; so the directory is renamed instead, where the volume has room for both.
The agent removes it afterwards (aside.rs), under the name `pgdata.removing`: a directory of the name
KEPT is always whole.
"""

import os

# The suffix of the directory's new name; contract::pod::PGDATA_KEPT.
KEPT = ".kept"
# The share of the volume that the kept directory, the clone and everything else may take together:
# from here on the volume counts as nearly full.
SHARE = 0.8


def size(folder):
    """The bytes that a folder takes on its volume."""
    found = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                found += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                pass
    return found


def is_unfinished_clone(folder):
    """A base backup brings `backup_label` first and `pg_control` last."""
    there = [os.path.exists(os.path.join(folder, name)) for name in ("backup_label", "global/pg_control")]
    return there == [True, False]


def has_room(folder, volume):
    used = (volume.f_blocks - volume.f_bavail) * volume.f_frsize
    return used + size(folder) <= SHARE * volume.f_blocks * volume.f_frsize


def set_aside(folder, volume=None):
    """Renames the folder if it has data and there is room. Returns whether it did."""
    kept = folder.rstrip(os.sep) + KEPT
    if not os.path.isdir(folder) or os.path.islink(folder) or not os.listdir(folder):
        return False
    # A directory that is kept already is from before the first clone; the present one is a clone.
    if is_unfinished_clone(folder) or os.path.lexists(kept):
        return False
    if not has_room(folder, volume or os.statvfs(folder)):
        return False
    os.rename(folder, kept)
    return True


def keep_data_directory(postgresql, logger):
    """Hooks into `patroni.postgresql.Postgresql`."""
    remove = postgresql.remove_data_directory

    def remove_or_keep(self):
        try:
            if not self.is_running() and set_aside(self._data_dir):
                logger.warning("the data directory is kept as %s until the agent removes it", self._data_dir + KEPT)
        except OSError as error:
            logger.warning("the data directory cannot be kept: %s", error)
        # After the rename it finds nothing to remove, and records that there is no data directory.
        return remove(self)

    postgresql.remove_data_directory = remove_or_keep
