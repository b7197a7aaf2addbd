# Both images, from one base. The binary is built before, by cargo, and copied
# in last: with a new binary only the last layer is new.
#
#   cargo build --release
#   docker build --target operator -t …/operator:… .
#   docker build --target postgres -t …/postgres:… .
ARG BASE=debian:trixie-slim
ARG PROGRAM=target/release/servicedb

FROM ${BASE} AS operator
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale
ARG PROGRAM
COPY ${PROGRAM} /usr/local/bin/servicedb
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/servicedb"]
CMD ["operator"]

FROM ${BASE} AS postgres
# The uid and gid are fixed: volumes outlive images.
# Documentation and translations are most of what could be left out; the
# bytecode of Python is compiled here, since a root that is read-only can
# never keep it and Patroni would compile at every start.
RUN groupadd --system --gid 999 postgres \
 && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/sh postgres \
 && printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' \
      >/etc/dpkg/dpkg.cfg.d/servicedb \
 && apt-get update \
 && apt-get install -y --no-install-recommends postgresql-common \
 && printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf \
 && apt-get install -y --no-install-recommends \
      postgresql-17 postgresql-17-pgaudit patroni pgbackrest pgbouncer prometheus-postgres-exporter tini ca-certificates \
 && python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.* \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale \
      /usr/lib/postgresql/17/lib/bitcode /etc/postgresql/17
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The agent hooks into Patroni: one in which the hooks would not hold any more fails here.
COPY src/agent/patroni/check.py src/agent/patroni/lease.py /tmp/patroni/
RUN python3 -B /tmp/patroni/check.py && rm -r /tmp/patroni
ARG PROGRAM
COPY ${PROGRAM} /usr/local/bin/servicedb
USER 999:999
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/servicedb"]
CMD ["agent"]
