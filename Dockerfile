# The images, from one base. The binaries are built before, by cargo, and copied
# in last: with a new binary only the last layer is new.
#
#   cargo build --release
#   docker build --target operator -t …/operator:… .
#   docker build --target postgres -t …/postgres:… .
#   docker build --target postgres-postgis -t …/postgres-postgis:… .   # the same with PostGIS
#
#   cargo build --release -p servicedb-gateway
#   docker build --target gateway -t …/gateway:… .
#
# Debian forky has no PostgreSQL 17, which comes from trixie: SOURCES, lines of
# sources.list(5) between "|". PIN and PRIORITY (apt_preferences(5)) decide
# between the two: under 500, SOURCES give what the base does not have. From
# PostgreSQL's own archive:
#
#   --build-arg BASE=debian:trixie-slim
#   --build-arg 'SOURCES=deb [signed-by=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc] https://apt.postgresql.org/pub/repos/apt trixie-pgdg main'
#   --build-arg 'PIN=origin apt.postgresql.org' --build-arg PRIORITY=900
#
# The collations of a living database follow the base's glibc and the ICU that
# PostgreSQL is linked with: see docs/operations.md before changing them.
ARG BASE=debian:forky-slim
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

# The servers, without the program.
FROM ${BASE} AS servers
ARG SOURCES="deb http://deb.debian.org/debian trixie main|deb http://deb.debian.org/debian-security trixie-security main"
ARG PIN="release n=trixie*"
ARG PRIORITY=100
ARG SERVERS="17 18"
ARG LOCALES="cs_CZ da_DK de_AT de_CH de_DE el_GR en_AU en_CA en_GB en_IE en_IN en_US es_ES es_MX fi_FI fr_BE fr_CA fr_CH fr_FR hu_HU it_IT ja_JP ko_KR nb_NO nl_BE nl_NL pl_PL pt_BR pt_PT ro_RO ru_RU sv_SE tr_TR uk_UA zh_CN zh_TW"
# The uid and gid are fixed: volumes outlive images.
# postgresql-common comes first: it has the key of PostgreSQL's own archive, and
# tells the servers' packages to make no cluster. The standalone packages take
# systemd's place.
# Documentation and translations are most of what could be left out; the
# bytecode of Python is compiled here, since a root that is read-only can
# never keep it and Patroni would compile at every start.
RUN groupadd --system --gid 999 postgres \
 && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/sh postgres \
 && printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' \
      >/etc/dpkg/dpkg.cfg.d/servicedb \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates postgresql-common systemd-standalone-sysusers systemd-standalone-tmpfiles \
 && printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf \
 && printf '%s\n' "$SOURCES" | tr '|' '\n' >/etc/apt/sources.list.d/servicedb.list \
 && printf 'Package: *\nPin: %s\nPin-Priority: %s\n' "$PIN" "$PRIORITY" >/etc/apt/preferences.d/servicedb \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      $(for server in $SERVERS; do \
          printf "postgresql-$server%s " '' -pgaudit -pgvector -partman -cron; \
        done) \
      patroni pgbackrest pgbouncer \
      prometheus-postgres-exporter locales tzdata-legacy tini \
 && printf '%s\n' $LOCALES \
    | xargs -P "$(nproc)" -I LOCALE localedef --no-archive -c -i LOCALE -f UTF-8 /usr/lib/locale/LOCALE.utf8 \
 && python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.* \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale /usr/share/i18n \
      /usr/lib/postgresql/*/lib/bitcode /etc/postgresql/* /etc/apt/sources.list.d/servicedb.list
# Clients of the newest version work with every server; the agent runs servers by their path.
ENV PATH=/usr/lib/postgresql/18/bin:/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# What the agent relies on: its hooks in Patroni, preloaded libraries, zones and
# collations. An image in which one of them does not hold fails here.
COPY src/agent/patroni/*.py /tmp/patroni/
RUN python3 -B /tmp/patroni/check.py && rm -r /tmp/patroni

# With PostGIS, which is more than half as large as all of the above (docs/operations.md).
FROM servers AS servers-postgis
ARG SOURCES="deb http://deb.debian.org/debian trixie main|deb http://deb.debian.org/debian-security trixie-security main"
ARG SERVERS="17 18"
RUN printf '%s\n' "$SOURCES" | tr '|' '\n' >/etc/apt/sources.list.d/servicedb.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends $(for server in $SERVERS; do echo "postgresql-$server-postgis-3"; done) \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale \
      /usr/lib/postgresql/*/lib/bitcode /etc/apt/sources.list.d/servicedb.list \
 && for server in $SERVERS; do \
      test -e "/usr/share/postgresql/$server/extension/postgis.control" \
      && test -e "/usr/lib/postgresql/$server/lib/postgis-3.so" || exit 1; \
    done

FROM servers-postgis AS postgres-postgis
ARG PROGRAM
COPY ${PROGRAM} /usr/local/bin/servicedb
USER 999:999
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/servicedb"]
CMD ["agent"]

FROM servers AS postgres
ARG PROGRAM
COPY ${PROGRAM} /usr/local/bin/servicedb
USER 999:999
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/servicedb"]
CMD ["agent"]

# The data gateway (docs/gateway.md), a program of its own.
FROM ${BASE} AS gateway
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale
ARG GATEWAY=target/release/servicedb-gateway
COPY ${GATEWAY} /usr/local/bin/servicedb-gateway
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/servicedb-gateway"]
