"""Ends the failsafe mode of a replica once the leader has renewed its lease (docs/decisions/0069).

While the API server is away, the leader calls every member, and a replica believes it for the lease's time
after its last call, whatever it reads meanwhile: Patroni puts that leader into each record in which nobody
leads. So a leader that hands the lead over, or fails and releases its lease, within that time after the API
server is back leaves nobody leading until it is over.

A renewal that was seen after the call shows that the leader has the API server again, so its record counts
again as always. This never promotes a member earlier by the end of a lease: the lease ends at least its time
after that renewal was seen, and so at least that time after the call.
"""


def end_failsafe_with_a_renewal(ha):
    """Hooks into `patroni.ha`."""
    import time

    # The renewal that the loop has seen last, and the one that it had seen at the last call.
    ha.Failsafe.renewal_seen = None
    ha.Failsafe.renewal_at_call = None
    update = ha.Failsafe.update
    load = ha.Ha.load_cluster_from_dcs

    def update_and_note(self, data):
        with self._lock:
            update(self, data)
            self.renewal_at_call = self.renewal_seen

    def load_and_compare(self):
        began = time.time()
        load(self)
        leader, failsafe = self.cluster.leader, self._failsafe
        # The leader of failsafe mode has no version.
        if not leader or not leader.version:
            return
        renewal = self.dcs._leader_observed_record.get("renewTime")
        with failsafe._lock:
            failsafe.renewal_seen = renewal
            calls = leader.name == failsafe._name and leader.name != self.state_handler.name
            # A call since then is one after this renewal.
            is_known = failsafe._last_update < began and failsafe.renewal_at_call is not None
            if calls and is_known and renewal != failsafe.renewal_at_call:
                ha.logger.info("%s has renewed its lease; failsafe mode has ended", leader.name)
                failsafe.set_is_active(0)

    ha.Failsafe.update = update_and_note
    ha.Ha.load_cluster_from_dcs = load_and_compare


