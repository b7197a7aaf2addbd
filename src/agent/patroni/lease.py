"""Keeps the leader's lease while the API server hangs (docs/decisions/0018).

A renewal that timed out may still be executed when the server continues. The next one then
conflicts with it. Patroni recognises its own write only by the time in the present renewal, so it
considers the lease lost and stops PostgreSQL.
"""

# Timeout of each request after a conflict, in seconds: the server has just answered.
LEASE_PATIENCE = 2
# The number of attempts: the write of the WAL position, which has no version to conflict with, may come
# between once more.
LEASE_TRIES = 3


def keep_own_lease(kubernetes):
    """Hooks into `patroni.dcs.kubernetes`."""
    write = kubernetes.Kubernetes._patch_or_create
    refused = kubernetes.k8s_client.rest.ApiException

    def once(request, *args):
        return request(*args, _request_timeout=LEASE_PATIENCE)

    def is_own(self, found, annotations, sent):
        # Each renewal has a unique time. So this process wrote the record last, on a version that it had
        # read: no other member has led in between, and no other pod of this name.
        same = all(found.get(key) == annotations[key] for key in ("acquireTime", "transitions"))
        return same and found.get(self._LEADER) == self._name and found.get("renewTime") in sent

    def renew_own(self, annotations, ips, sent):
        """Renews on top of the record if this member wrote it; otherwise returns None."""
        for _ in range(LEASE_TRIES):
            try:
                record = once(self._api.read_namespaced_kind, self.leader_path, self._namespace)
                if not is_own(self, record.metadata.annotations or {}, annotations, sent):
                    return None
                version = record.metadata.resource_version
                return write(self, self.leader_path, annotations, version, retry=once, ips=ips)
            except refused as error:
                if error.status != 409:
                    raise unknown(error) from error
        raise kubernetes.KubernetesError("the leader's record changes with each attempt to renew it")

    def unknown(error):
        return kubernetes.KubernetesError(f"the lease may or may not be renewed: {error.status} {error.reason}")

    def patch_or_create(self, name, annotations, resource_version=None, patch=False, retry=None, ips=None):
        renews = name == self.leader_path and annotations.get(self._LEADER) == self._name
        if not renews or "renewTime" not in annotations:
            return write(self, name, annotations, resource_version, patch, retry, ips)
        sent = self.__dict__.setdefault("servicedb_sent", set())
        sent.add(annotations["renewTime"])
        try:
            written = write(self, name, annotations, resource_version, patch, retry, ips)
        except refused as error:
            # Equal where the lease is acquired and not renewed: there is no lease to keep.
            if annotations["acquireTime"] == annotations["renewTime"]:
                raise
            if error.status != 409:
                # This does not mean that another member leads. Patroni would stop PostgreSQL; as with a
                # server that does not answer, the other members decide (failsafe mode).
                raise unknown(error) from error
            written = renew_own(self, annotations, ips, sent)
            if written is None:
                raise
            kubernetes.logger.info("The record in conflict is this member's own: the lease is renewed")
        # Every renewal that is still in flight is based on an earlier version, and is refused.
        sent.clear()
        sent.add(annotations["renewTime"])
        return written

    kubernetes.Kubernetes._patch_or_create = patch_or_create


