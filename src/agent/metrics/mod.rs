//! The metrics of an instance, at `/metrics` of the agent's port: those of `prometheus-postgres-exporter`, by its
//! names, and Servicedb's own. docs/monitoring.md lists them.
//!
//! A scrape costs the database at most one collection in [`KEPT`], however many ask: those who ask meanwhile get
//! the same page. Nothing else in the agent waits for it.

pub mod capacity;
mod clients;
mod cluster;
mod instance;
mod maintenance;
mod ours;
pub mod queries;
pub mod query;
mod session;
mod settings;
mod tables;
mod text;
pub mod tls;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::Instant;

use self::capacity::CapacityWatch;
use self::instance::Instance;
use self::queries::Queries;
use self::session::{Collected, Session};
use self::text::{CONTENT_TYPE, Family, Kind};
use super::clients::count::Logins;
use super::desired::DesiredState;
use super::maintenance::KnownWatch;
use super::probes::Readiness;
use super::server_log;
use super::volume;
use crate::api::names::Names;
use crate::contract::pod::{SOCKET_DIR, TLS_DIR};
use crate::contract::report::{Report, Role};

/// How long a page is the answer to every request.
pub const KEPT: Duration = Duration::from_secs(5);
/// The longest collection: shorter than Prometheus' own limit of ten seconds.
const LONGEST: Duration = Duration::from_secs(8);
/// How long the sessions stay open after the last scrape.
const IDLE: Duration = Duration::from_secs(300);
/// The requests that may wait at once; more are refused.
const WAITING: usize = 64;

/// What other parts of the agent know.
pub struct Followed {
    /// The names of the resource.
    pub names: Names,
    /// The desired state, which names the database.
    pub desired: DesiredState,
    /// The growth of the database.
    pub capacity: CapacityWatch,
    /// What the maintenance knows.
    pub maintenance: KnownWatch,
    /// The team's own queries.
    pub queries: Queries,
}

/// The metrics of this instance; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    report: watch::Receiver<Report>,
    readiness: watch::Receiver<Readiness>,
    followed: OnceLock<Followed>,
    promotions: AtomicU64,
    waiting: Semaphore,
    scraper: Mutex<Scraper>,
    scraped: Mutex<Option<(Instant, Bytes)>>,
}

impl Metrics {
    /// Metrics of the agent with this report. The server's follow once the desired state is known.
    pub fn new(report: watch::Receiver<Report>, readiness: watch::Receiver<Readiness>) -> Self {
        let inner = Inner {
            report: report.clone(),
            readiness,
            followed: OnceLock::new(),
            promotions: AtomicU64::new(0),
            waiting: Semaphore::new(WAITING),
            scraper: Mutex::new(Scraper::new(SOCKET_DIR)),
            scraped: Mutex::new(None),
        };
        let metrics = Self(Arc::new(inner));
        tokio::spawn(metrics.clone().count_promotions(report));
        tokio::spawn(metrics.clone().close_idle());
        metrics
    }

    /// Takes what other parts of the agent know; once.
    pub fn follow(&self, followed: Followed) {
        _ = self.0.followed.set(followed);
    }

    /// The page; none if too many wait for it.
    pub async fn page(&self) -> Option<Bytes> {
        let _place = self.0.waiting.try_acquire().ok()?;
        // A task of its own: a client that hangs up does not break a collection off, whose session would then have
        // a query under way.
        let metrics = self.clone();
        tokio::spawn(async move { metrics.current().await }).await.ok()
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        Router::new().route("/metrics", get(answer)).with_state(self.clone())
    }

    async fn current(&self) -> Bytes {
        let mut scraped = self.0.scraped.lock().await;
        if let Some((at, page)) = scraped.as_ref()
            && at.elapsed() < KEPT
        {
            return page.clone();
        }
        let known = self.known();
        let known = known.as_ref().map(|(database, logins)| (database.as_str(), logins));
        let of_team = async {
            match self.0.followed.get() {
                Some(followed) => followed.queries.families().await,
                None => Vec::new(),
            }
        };
        let of_server = async { self.0.scraper.lock().await.collect(known).await };
        let (of_server, of_team) = tokio::join!(of_server, of_team);
        let mut page = String::new();
        self.own(known.map(|(_, logins)| logins))
            .iter()
            .chain(&of_server)
            .chain(&of_team)
            .for_each(|family| family.write(&mut page));
        let page = Bytes::from(page);
        *scraped = Some((Instant::now(), page.clone()));
        page
    }

    /// The database, and the logins of its clients.
    fn known(&self) -> Option<(String, Logins)> {
        let followed = self.0.followed.get()?;
        let desired = followed.desired.borrow();
        let desired = desired.as_ref()?;
        let names = followed.names.postgres(&desired.database);
        Some((desired.database.clone(), Logins::of(&names, &desired.clients)))
    }

    /// What the agent knows itself.
    fn own(&self, logins: Option<&Logins>) -> Vec<Family> {
        let (report, ready) = (self.0.report.borrow().clone(), *self.0.readiness.borrow());
        let instance = Instance {
            report: &report,
            ready: &ready,
            promotions: self.0.promotions.load(Ordering::Relaxed),
            log_dropped: server_log::dropped_bytes(),
            certificates: Path::new(TLS_DIR),
            volume: volume::size().ok().zip(volume::free().ok()),
        };
        let mut families = instance.families();
        let Some(followed) = self.0.followed.get() else { return families };
        let capacity = followed.capacity.borrow().clone();
        families.extend(capacity.iter().flat_map(|capacity| capacity::families(capacity)));
        families.extend(logins.map(clients::logins));
        families.extend(maintenance::families(report.maintenance.as_deref(), &followed.maintenance.borrow()));
        families
    }

    async fn count_promotions(self, mut report: watch::Receiver<Report>) {
        let mut last = None;
        loop {
            let role = report.borrow_and_update().role;
            if (last, role) == (Some(Role::Replica), Some(Role::Primary)) {
                self.0.promotions.fetch_add(1, Ordering::Relaxed);
            }
            last = role.or(last);
            if report.changed().await.is_err() {
                return;
            }
        }
    }

    async fn close_idle(self) {
        loop {
            tokio::time::sleep(IDLE).await;
            let mut scraped = self.0.scraped.lock().await;
            if scraped.as_ref().is_some_and(|(at, _)| at.elapsed() >= IDLE) {
                *scraped = None;
                self.0.scraper.lock().await.close();
            }
        }
    }
}

async fn answer(State(metrics): State<Metrics>) -> Response {
    match metrics.page().await {
        Some(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for the metrics").into_response(),
    }
}

/// The sessions, and what is counted of the scrapes.
pub struct Scraper {
    socket: String,
    cluster: Option<Session>,
    tenant: Option<(String, Session)>,
    scrapes: u64,
}

impl Scraper {
    /// A scraper of the server whose socket is in this folder.
    pub fn new(socket: &str) -> Self {
        Self { socket: socket.to_owned(), cluster: None, tenant: None, scrapes: 0 }
    }

    /// Ends the sessions.
    pub fn close(&mut self) {
        self.cluster = None;
        self.tenant = None;
    }

    /// Reads all metrics of the server; those of tables and by client if the database and its logins are known.
    pub async fn collect(&mut self, known: Option<(&str, &Logins)>) -> Vec<Family> {
        let begin = Instant::now();
        let deadline = begin + LONGEST;
        self.scrapes += 1;
        let mut collected = self.of_cluster(known.map(|(_, logins)| logins), deadline).await;
        let up = collected.is_some();
        if up && let Some((database, _)) = known {
            let tables = self.of_tenant(database, deadline).await;
            collected.get_or_insert_default().extend(tables);
        }
        self.families(up, collected.unwrap_or_default(), begin.elapsed())
    }

    /// None without a session.
    async fn of_cluster(&mut self, logins: Option<&Logins>, deadline: Instant) -> Option<Vec<Collected>> {
        let open = self.cluster.take().filter(|session| !session.is_closed());
        let mut session = match open {
            Some(session) => session,
            None => match Session::of_cluster(&self.socket).await {
                Ok(session) => session,
                Err(error) => {
                    tracing::debug!(%error, "the server's metrics cannot be read");
                    return None;
                }
            },
        };
        let mut collected = session.collect(cluster::COLLECTORS, deadline).await;
        collected.extend(session.collect(ours::COLLECTORS, deadline).await);
        if let Some(logins) = logins {
            collected.push(session.clients(logins, deadline).await);
        }
        collected.push(session.settings(deadline).await);
        // A session that hung is not used again.
        self.cluster = (Instant::now() < deadline).then_some(session);
        Some(collected)
    }

    async fn of_tenant(&mut self, database: &str, deadline: Instant) -> Vec<Collected> {
        let open = self.tenant.take().filter(|(of, session)| of == database && !session.is_closed());
        let mut session = match open {
            Some((_, session)) => session,
            None => match Session::of_tenant(&self.socket, database).await {
                Ok(session) => session,
                Err(error) => {
                    tracing::debug!(%error, database, "the metrics of tables cannot be read");
                    let failed = |collector: &query::Collector| Collected {
                        name: collector.name,
                        took: Duration::ZERO,
                        result: Err(session::SessionError::TooLong),
                    };
                    return tables::COLLECTORS.iter().map(failed).collect();
                }
            },
        };
        let collected = session.collect(tables::COLLECTORS, deadline).await;
        self.tenant = (Instant::now() < deadline).then(|| (database.to_owned(), session));
        collected
    }

    fn families(&self, up: bool, collected: Vec<Collected>, took: Duration) -> Vec<Family> {
        let mut success = Family::new(
            "pg_scrape_collector_success",
            Kind::Gauge,
            "postgres_exporter: Whether a collector succeeded.",
        );
        let mut duration = Family::new(
            "pg_scrape_collector_duration_seconds",
            Kind::Gauge,
            "postgres_exporter: Duration of a collector scrape.",
        );
        let mut failed = !up;
        let mut families = Vec::new();
        for Collected { name, took, result } in collected {
            success.sample([("collector", name)], f64::from(u8::from(result.is_ok())));
            duration.sample([("collector", name)], took.as_secs_f64());
            match result {
                Ok(found) => families.extend(found),
                Err(error) => {
                    failed = true;
                    tracing::debug!(%error, collector = name, "metrics cannot be read");
                }
            }
        }
        let flag = |value: bool| f64::from(u8::from(value));
        let gauge = |name, help, value| Family::single(name, Kind::Gauge, help, value);
        families.extend([
            success,
            duration,
            gauge(
                "pg_up",
                "Whether the last scrape of metrics from PostgreSQL was able to connect to the server (1 for yes, 0 for no).",
                flag(up),
            ),
            gauge(
                "pg_exporter_last_scrape_error",
                "Whether the last scrape of metrics from PostgreSQL resulted in an error (1 for error, 0 for success).",
                flag(failed),
            ),
            gauge(
                "pg_exporter_last_scrape_duration_seconds",
                "Duration of the last scrape of metrics from PostgreSQL.",
                took.as_secs_f64(),
            ),
            Family::single(
                "pg_exporter_scrapes_total",
                Kind::Counter,
                "Total number of times PostgreSQL was scraped for metrics.",
                self.scrapes as f64,
            ),
        ]);
        families
    }
}

/// All metrics of a server as a page, for tests and measurements.
pub async fn page_of(scraper: &mut Scraper, database: &str, logins: &Logins) -> String {
    let mut page = String::new();
    scraper.collect(Some((database, logins))).await.iter().for_each(|family| family.write(&mut page));
    page
}
