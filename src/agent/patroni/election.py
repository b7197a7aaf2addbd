"""Keeps what an election is decided on (docs/decisions/0023).

A member decides that nobody leads, compares itself with the others, which takes seconds if one of them
cannot be reached, and takes the lease on the version of the leader's record that it has read. Patroni
keeps that version, and the record beside it, in one place for all threads: a request to its REST API
that reads the cluster in between (`GET /cluster`, `PATCH /config`) replaces both. The member would then
take the lease from another one that has just got it, and both would be primaries
(github.com/patroni/patroni/issues/3718, open in 4.1.5).

So the thread of the loop has its own values, and all others share theirs.
"""

import threading


def decide_on_one_reading(kubernetes):
    """Hooks into `patroni.dcs.kubernetes`."""
    loop = threading.main_thread()

    def of_each(name):
        own, others = name + "_of_the_loop", name + "_of_others"

        def read(self):
            values = self.__dict__
            if threading.current_thread() is not loop and others in values:
                return values[others]
            return values[own]

        def write(self, value):
            self.__dict__[own if threading.current_thread() is loop else others] = value

        return property(read, write)

    for name in ("_leader_resource_version", "_leader_observed_record", "_leader_observed_time"):
        setattr(kubernetes.Kubernetes, name, of_each(name))


