# A service's shell, for the demo and the tests: psql, and curl and jq for Vault.
ARG BASE=debian:forky-slim
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-client curl jq ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale
USER 65532:65532
CMD ["sleep", "infinity"]
