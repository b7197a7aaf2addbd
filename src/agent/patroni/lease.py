"""Keeps the leader's lease over an API server that hangs (docs/decisions/0018).

A renewal that timed out may still be carried out when the server goes on. The next one then
conflicts with it, and Patroni, which knows its own write only by the time it has just put into the
next, takes the lease for lost and PostgreSQL down.
"""

# How long each request after a conflict may take: the server has just answered.
LEASE_PATIENCE = 2
# How often it is tried: what may come between once more is the position of the log, which has no
# version to conflict with.
LEASE_TRIES = 3


def keep_own_lease(kubernetes):
    """Hooks into `patroni.dcs.kubernetes`."""
    write = kubernetes.Kubernetes._patch_or_create
    refused = kubernetes.k8s_client.rest.ApiException

    def once(request, *args):
        return request(*args, _request_timeout=LEASE_PATIENCE)

    def is_own(self, found, annotations, sent):
        # Each renewal carries a time that no other has. So the record was written last by this
        # very process, on a version that it had read: nobody else has led in between, and no
        # other pod of this name.
        same = all(found.get(key) == annotations[key] for key in ("acquireTime", "transitions"))
        return same and found.get(self._LEADER) == self._name and found.get("renewTime") in sent

    def renew_own(self, annotations, ips, sent):
        """Renews on top of the record, if that is this member's own; none if it is not."""
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
        raise kubernetes.KubernetesError("the leader's record changes with each try to renew it")

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
            # Equal where the lease is taken and not renewed: there is nothing to keep.
            if annotations["acquireTime"] == annotations["renewTime"]:
                raise
            if error.status != 409:
                # It does not say that anybody else leads. Patroni would end PostgreSQL; as with a
                # server that does not answer, the other members decide (failsafe mode).
                raise unknown(error) from error
            written = renew_own(self, annotations, ips, sent)
            if written is None:
                raise
            kubernetes.logger.info("The record in conflict is this member's own: the lease is renewed")
        # Whatever is still on its way was based on an earlier version, and comes to nothing.
        sent.clear()
        sent.add(annotations["renewTime"])
        return written

    kubernetes.Kubernetes._patch_or_create = patch_or_create


