//! PostGIS, in the image that has it (`postgres-postgis`): migrations, clients, the drift check, the check of a backup, a
//! major upgrade, and the update of the extensions after it.

use serde_json::{Value, json};
use servicedb::api::{MaintenanceAction, ServiceDatabase, UpgradePhase};

use crate::harness::{
    Cluster, Operator, READY, SOON, Sandbox, alone, column, config_map, database, plugin, run, service_account, store,
    then_restore, until,
};

/// The operator's setting of the database images.
const IMAGES: &str = "SERVICEDB_POSTGRES_IMAGES";

/// Columns of a type with modifiers, a generated one, an index of PostGIS's own kind, and one on an expression, which the
/// check of a backup evaluates.
const PLACES: (&str, &str) = (
    "1_places.up.sql",
    "CREATE TABLE places (
         id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
         at geometry(Point, 4326) NOT NULL,
         east double precision GENERATED ALWAYS AS (ST_X(at)) STORED);
     CREATE INDEX places_at ON places USING gist (at);
     CREATE INDEX places_hash ON places (ST_GeoHash(at, 8));
     CREATE TABLE areas (id bigint PRIMARY KEY, shape geography(Polygon, 4326), tile raster);
     CREATE VIEW eastern AS SELECT id, ST_AsText(at) AS at FROM places WHERE ST_X(at) >= 50;",
);

/// Ten thousand points of a grid, in degrees of longitude and latitude. Those of the lowest twenty rows are there twice.
const GRID: &str = "INSERT INTO places (at) SELECT ST_SetSRID(ST_MakePoint(n % 100, n / 100 % 80), 4326) \
                    FROM generate_series(0, 9999) n";
/// A point of the grid and its four neighbours.
const NEAR: &str = "SELECT count(*)::text FROM places WHERE ST_DWithin(at, ST_SetSRID(ST_MakePoint(30, 50), 4326), 1)";
/// Reads `spatial_ref_sys`.
const PROJECTED: &str = "SELECT round(ST_X(ST_Transform(ST_SetSRID(ST_MakePoint(10, 50), 4326), 3857)))::text";
const EXTENSIONS: &str = "SELECT concat_ws(' ', e.extname, n.nspname, pg_get_userbyid(n.nspowner)) FROM pg_extension e \
                          JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname LIKE 'postgis%' ORDER BY 1";
const VERSIONS: &str = "SELECT DISTINCT extversion FROM pg_extension WHERE extname LIKE 'postgis%'";
/// What the database sets for its sessions.
const PATHS: &str = "SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = \
                     (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Runs the plugin, which must succeed; returns what it said.
async fn ask(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = plugin(sandbox, arguments).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// The rows as the application reads them.
async fn rows(sandbox: &Sandbox, statement: &str) -> Vec<String> {
    let connection = sandbox.connect("shop").await;
    column(&connection, statement).await.unwrap_or_else(|refusal| panic!("{statement}: {refusal:?}"))
}

/// Rows, index and projection are the application's, with unqualified names.
async fn it_serves(sandbox: &Sandbox) {
    assert_eq!(rows(sandbox, "SELECT count(*)::text FROM places").await, ["10000"]);
    assert_eq!(rows(sandbox, NEAR).await, ["5"]);
    let plan = rows(sandbox, &format!("EXPLAIN (COSTS OFF) {NEAR}")).await.join("\n");
    assert!(plan.contains("places_at"), "{plan}");
    assert_eq!(rows(sandbox, PROJECTED).await, ["1113195"]);
    assert_eq!(rows(sandbox, "SELECT count(*)::text FROM eastern WHERE at = 'POINT(99 79)'").await, ["1"]);
    let registered = "SELECT f_geometry_column || ' ' || type || ' ' || srid FROM geometry_columns \
                      WHERE f_table_schema = 'public'";
    assert_eq!(rows(sandbox, registered).await, ["at POINT 4326"]);
    let libraries = "SELECT postgis_version() IS NOT NULL AND topology.postgis_topology_scripts_installed() IS NOT NULL \
                    AND postgis_raster_lib_version() IS NOT NULL";
    assert_eq!(rows(sandbox, libraries).await, ["t"]);
}

/// Whoever has a login of its own reads the tables that were declared, and what PostGIS gives to everybody is no grant of
/// its own.
async fn the_client_reads(sandbox: &Sandbox) {
    sandbox
        .wait("the client's rights are the declared ones", "shop", SOON, |database| {
            let clients = database.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
            clients.len() == 1 && clients.iter().all(|client| client.rights == "Applied")
        })
        .await;
    let (_, credentials) = sandbox.credentials_of("shop", "map").await;
    let client = sandbox.login("shop", &credentials).await.expect("a login");
    assert_eq!(column(&client, NEAR).await.expect("a declared table"), ["5"]);
    assert_eq!(column(&client, PROJECTED).await.expect("what everybody may read"), ["1113195"]);
    let refused = run(&client, "DELETE FROM places").await.expect_err("no declared right");
    assert_eq!(refused.sqlstate.as_deref(), Some("42501"));
}

async fn no_drift(sandbox: &Sandbox) {
    let said = ask(sandbox, &["drift", "shop"]).await;
    assert!(said.contains("the schema matches"), "{said}");
}

/// The upgrade to 18, whose image has a later PostGIS: it keeps the version of the database until maintenance.
async fn upgraded_and_updated(sandbox: &Sandbox) {
    let before = rows(sandbox, VERSIONS).await;
    assert_eq!(before.len(), 1, "{before:?}");
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"version": "18"}}})).await;
    sandbox
        .wait("the upgrade is pending", "shop", READY, |database| {
            let upgrade = database.status.as_ref().and_then(|status| status.upgrade.as_ref());
            upgrade.is_some_and(|upgrade| upgrade.phase == UpgradePhase::Pending)
        })
        .await;
    let said = ask(sandbox, &["upgrade", "shop", "--check"]).await;
    println!("{said}");
    ask(sandbox, &["upgrade", "shop", "--yes"]).await;
    sandbox
        .wait("both instances serve with 18", "shop", READY * 2, |database| {
            let status = database.status.clone().unwrap_or_default();
            let is_new = status.postgres_version.as_deref().is_some_and(|version| version.starts_with("18."));
            is_new && status.instances.as_deref() == Some("2/2")
        })
        .await;
    assert_eq!(rows(sandbox, VERSIONS).await, before, "an upgrade keeps the versions");
    it_serves(sandbox).await;
    no_drift(sandbox).await;

    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"maintenance": {"updateExtensions": true}}})).await;
    let told = sandbox
        .wait("the later version is due", "shop", READY, |database| {
            let maintenance = database.status.as_ref().and_then(|status| status.maintenance.as_deref());
            maintenance.is_some_and(|maintenance| {
                maintenance.due.iter().any(|due| {
                    due.action == MaintenanceAction::UpdateExtension
                        && due.object == "postgis"
                        && due.reason.contains(&before[0])
                })
            })
        })
        .await;
    println!("{:?}", told.status.and_then(|status| status.maintenance).map(|maintenance| maintenance.due));
    ask(sandbox, &["maintenance", "shop", "--now"]).await;
    let after = rows(sandbox, VERSIONS).await;
    assert!(after.len() == 1 && after != before, "{before:?}, then {after:?}");
    assert_eq!(rows(sandbox, PATHS).await, [""; 0]);
    it_serves(sandbox).await;
    no_drift(sandbox).await;
}

/// The geocoder is created as the owner; its functions need its schema in the path, which the spec sets.
async fn the_geocoder(sandbox: &Sandbox, extensions: &Value) {
    let mut extensions = extensions.as_array().expect("a list").clone();
    extensions.push(json!({"name": "postgis_tiger_geocoder"}));
    let postgres = json!({"extensions": extensions, "parameters": {"search_path": "\"$user\", public, tiger"}});
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": postgres}})).await;
    until("the geocoder is there, and found", READY, || async {
        let connection = sandbox.connect("shop").await;
        let normalized = "SELECT stateabbrev FROM normalize_address('1 Devonshire Place, Boston, MA 02109')";
        let found = column(&connection, normalized).await.map_err(|refusal| refusal.message)?;
        if found == ["MA"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(rows(sandbox, PATHS).await, [""; 0]);
    it_serves(sandbox).await;
}

#[test]
#[ignore = "needs an image that takes minutes to build: make test-image"]
fn a_database_with_postgis_is_migrated_checked_and_upgraded() {
    assert!(Cluster::is_local(), "only on the local cluster, into whose nodes the image is loaded");
    let _store = store::used();
    alone("postgis", async |sandbox| {
        let operator = Operator::of(sandbox.cluster);
        let present = operator.setting(IMAGES).await.expect("the images");
        let image = std::env::var("POSTGIS_IMAGE").expect("POSTGIS_IMAGE names the image");
        let work = async {
            operator.set(IMAGES, &format!("17={image},18={image}")).await;
            sandbox.create(config_map("migrations", &[PLACES])).await;
            sandbox.create(service_account("map")).await;
            let extensions = json!([{"name": "postgis"}, {"name": "postgis_raster"},
                                    {"name": "postgis_topology", "schema": "topology"}]);
            let grants = json!([{"tables": ["*"], "privileges": ["SELECT"]}]);
            let spec = json!({
                "instances": 2, "storage": {"size": "1Gi"},
                "postgres": {"version": "17", "extensions": extensions},
                "migrations": {"source": {"configMap": {"name": "migrations"}}},
                "clients": [{"serviceAccountName": "map", "access": {"mode": "Custom", "grants": grants}}],
                "backup": {"store": "main", "schedule": {"verification": ""}},
            });
            sandbox.create(database("shop", spec)).await;
            sandbox.ready("shop", READY * 2).await;
            let places = "postgis servicedb_extensions postgres, postgis_raster servicedb_extensions postgres, \
                          postgis_topology topology postgres";
            assert_eq!(rows(&sandbox, EXTENSIONS).await.join(", "), places);
            assert_eq!(rows(&sandbox, PATHS).await, [""; 0], "no script's path takes precedence over the spec's");

            let connection = sandbox.connect("shop").await;
            run(&connection, GRID).await.expect("a grid");
            drop(connection);
            let primary = sandbox.primary("shop").await;
            let analyzed = sandbox.exec(&primary, "psql -XAtd shop_db -c 'ANALYZE public.places'").await;
            assert!(analyzed.status.success(), "{}", String::from_utf8_lossy(&analyzed.stderr));
            it_serves(&sandbox).await;
            the_client_reads(&sandbox).await;
            no_drift(&sandbox).await;
            sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
            ask(&sandbox, &["backup", "shop"]).await;
            ask(&sandbox, &["verify-backup", "shop"]).await;

            upgraded_and_updated(&sandbox).await;
            the_client_reads(&sandbox).await;
            the_geocoder(&sandbox, &extensions).await;
            no_drift(&sandbox).await;
        };
        // On the heap: an unoptimised build moves what is awaited several times.
        then_restore(Box::pin(work), operator.set(IMAGES, &present)).await;
    });
}
