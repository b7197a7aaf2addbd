"""Runs Patroni, loaded ahead of its work: a line on standard input lets it go."""

import sys

import yaml

# Loading Patroni reads lists of PostgreSQL's settings, half of its start in Python's own
# YAML reader and a twentieth of it in libyaml's.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

if __name__ == "__main__":
    import patroni.__main__
    import patroni.api
    import patroni.dcs.kubernetes
    import patroni.ha
    import patroni.log
    import patroni.postgresql
    import patroni.request
    import patroni.watchdog

    # The end of input means that the agent is gone.
    if sys.stdin.readline():
        sys.argv = ["patroni", sys.argv[1]]
        patroni.__main__.main()
