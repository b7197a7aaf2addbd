//! Answers of reads that are kept, for collections that the settings name. Each has the version of what it was read from, and
//! is given out again only by a statement that finds this version in its own snapshot: nobody reads what a commit has
//! replaced. A statement that finds another one carries the read out, in the same round trip.

mod kept;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};

pub use self::kept::{Kept, Reader};
use self::kept::{Key, Room};
use crate::catalog::{Catalog, Steady};
use crate::config::{self, MEBIBYTE};
use crate::sql::{Statement, versioned};

/// Words in a value that a date or time is read from by the present time.
const OF_THE_TIME: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Collection {
    collection: String,
}

/// See the module.
pub struct Cache {
    /// The default schema.
    schema: String,
    /// As the settings name them.
    collections: Vec<String>,
    most: usize,
    room: Mutex<Room>,
    hits: Family<Collection, Counter>,
    misses: Family<Collection, Counter>,
    evictions: Counter,
    bytes: Gauge,
    entries: Gauge,
}

impl Cache {
    /// As the settings have it; none without collections. `schema` is the default one.
    pub fn new(settings: Option<&config::Cache>, schema: &str) -> Option<Arc<Self>> {
        let settings = settings?;
        let most = settings.megabytes * MEBIBYTE;
        Some(Arc::new(Self {
            schema: schema.to_owned(),
            collections: settings.collections.clone(),
            most,
            room: Mutex::new(Room::new(most)),
            hits: Family::default(),
            misses: Family::default(),
            evictions: Counter::default(),
            bytes: Gauge::default(),
            entries: Gauge::default(),
        }))
    }

    /// Adds its metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("cache_hits", "Reads that a kept answer has answered, by collection", self.hits.clone());
        registry.register(
            "cache_misses",
            "Reads whose answer may be kept and that were carried out, by collection",
            self.misses.clone(),
        );
        registry.register("cache_evictions", "Kept answers that made room for newer ones", self.evictions.clone());
        registry.register_with_unit("cache_size", "Room that kept answers take", Unit::Bytes, self.bytes.clone());
        registry.register("cache_entries", "Kept answers", self.entries.clone());
    }

    /// What there is to be said of it in `/stats`: of this pod.
    pub fn state(&self, catalog: &Catalog) -> Value {
        let of = |counts: &Family<Collection, Counter>, collection: &str| {
            counts.get(&Collection { collection: collection.to_owned() }).map_or(0, |count| count.get())
        };
        let collections = self.collections.iter().map(|named| {
            let fault = self.fault(catalog, named);
            let title = catalog
                .table(None, named)
                .map_or_else(|_| named.clone(), |table| self.title(&table.schema, &table.name));
            json!({
                "name": named, "cached": fault.is_none(), "reason": fault,
                "hits": of(&self.hits, &title), "misses": of(&self.misses, &title),
            })
        });
        let collections: Vec<_> = collections.collect();
        json!({
            "collections": collections, "limit_bytes": self.most, "size_bytes": self.bytes.get(),
            "entries": self.entries.get(), "evictions": self.evictions.get(),
        })
    }

    /// Forgets all answers after a change of the schema, and says which collections are not cached.
    pub fn catalog_changed(&self, catalog: &Catalog) {
        for collection in &self.collections {
            if let Some(reason) = self.fault(catalog, collection) {
                tracing::warn!(collection, reason, "answers of this collection are not cached");
            }
        }
        let mut room = self.lock();
        room.clear();
        self.measure(&room);
    }

    /// Why answers of a collection are not kept.
    fn fault(&self, catalog: &Catalog, collection: &str) -> Option<String> {
        match catalog.table(None, collection) {
            Err(_) => Some("there is no such collection in the exposed schemas".to_owned()),
            Ok(table) => match &table.steady {
                None => Some("the schema was not read yet".to_owned()),
                Some(steady) => steady.fault.clone(),
            },
        }
    }

    fn declares(&self, table: &Steady) -> bool {
        self.collections.iter().any(|named| match named.split_once('.') {
            _ if *named == table.name => table.schema == self.schema,
            Some((schema, name)) => schema == table.schema && name == table.name,
            None => false,
        })
    }

    /// The name of a collection in metrics.
    fn title(&self, schema: &str, name: &str) -> String {
        if schema == self.schema { name.to_owned() } else { format!("{schema}.{name}") }
    }

    /// Whether an answer to this read depends on nothing but its caller and the rows that it sees: each of its collections is
    /// declared and steady, it has no cast, which may read a text as a time, and no value that names one.
    fn may_keep(&self, read: &Statement) -> bool {
        let is_timeless = |value: &String| {
            // Within arrays and ranges, `n\ow` and `n"o"w` are the same word.
            let value: String = value.chars().filter(|next| !['\\', '"'].contains(next)).collect();
            let value = value.to_ascii_lowercase();
            !OF_THE_TIME.iter().any(|word| value.contains(word))
        };
        !read.reads.is_empty()
            && read.reads.iter().all(|table| table.fault.is_none() && self.declares(table))
            && !read.sql.contains("CAST(")
            && read.parameters.iter().flatten().all(is_timeless)
    }

    /// Looks a read up; nothing, if its answer is not one to be kept. `frame` is all that stands around its rows.
    pub fn lookup(
        self: &Arc<Self>,
        reader: Reader<'_>,
        read: &Statement,
        frame: impl FnOnce() -> String,
    ) -> Option<Lookup> {
        if !self.may_keep(read) {
            return None;
        }
        let first = read.reads.first()?;
        let collection = self.title(&first.schema, &first.name);
        let key = Key::new(reader, read, frame());
        let (known, cleared) = {
            let mut room = self.lock();
            (room.get(&key), room.cleared())
        };
        let statement = versioned(read, known.as_ref().map_or("", |known| known.version.as_str()));
        Some(Lookup { cache: Arc::clone(self), key, collection, known, cleared, statement })
    }

    fn measure(&self, room: &Room) {
        self.bytes.set(i64::try_from(room.bytes()).unwrap_or(i64::MAX));
        self.entries.set(i64::try_from(room.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A read whose answer may be kept, or is.
pub struct Lookup {
    cache: Arc<Cache>,
    key: Key,
    collection: String,
    known: Option<Arc<Kept>>,
    /// How often all answers had been forgotten before.
    cleared: u64,
    statement: Statement,
}

impl Lookup {
    /// The read with its version: it has no row where the kept answer is the one.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The largest answer that is kept, in bytes.
    pub fn largest(&self) -> usize {
        Room::largest(self.cache.most)
    }

    /// The kept answer, if it is of the version that the statement has found.
    pub fn hit(&self, found: Option<&str>) -> Option<Arc<Kept>> {
        let known = self.known.as_ref().filter(|known| Some(known.version.as_str()) == found)?;
        self.cache.hits.get_or_create(&Collection { collection: self.collection.clone() }).inc();
        Some(Arc::clone(known))
    }

    /// The read was carried out: keeps its answer, if it is a whole one and has a version.
    pub fn carried_out(self, found: Option<String>, answer: Option<Answered<'_>>) {
        let Self { cache, key, collection, cleared, .. } = self;
        cache.misses.get_or_create(&Collection { collection }).inc();
        let (Some(version), Some(answer)) = (found, answer) else { return };
        if answer.text.len() > Room::largest(cache.most) {
            return;
        }
        // A copy: the text may be a part of a larger buffer.
        let text = Bytes::copy_from_slice(answer.text);
        let kept = Kept { version, text, ends: answer.ends, rows: answer.rows };
        let mut room = cache.lock();
        // It was read before a change of the schema that made all others be forgotten.
        if room.cleared() != cleared {
            return;
        }
        let evicted = room.put(key, Arc::new(kept));
        cache.measure(&room);
        drop(room);
        cache.evictions.inc_by(evicted);
    }
}

/// A whole answer.
pub struct Answered<'a> {
    /// Its rows, with what stands around them.
    pub text: &'a [u8],
    /// Where each row ends.
    pub ends: Vec<usize>,
    /// The number of rows.
    pub rows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Charge;

    fn steady(schema: &str, name: &str, fault: Option<&str>) -> Arc<Steady> {
        let (schema, name, fault) = (schema.to_owned(), name.to_owned(), fault.map(str::to_owned));
        Arc::new(Steady { schema, name, oid: 1, state: "r f f".to_owned(), fault })
    }

    fn read(reads: Vec<Arc<Steady>>, value: &str) -> Statement {
        Statement { reads, parameters: vec![Some(value.to_owned())], ..Statement::plain("SELECT 1", Charge::Plan) }
    }

    fn cache() -> Arc<Cache> {
        let collections = vec!["films".to_owned(), "shop.orders".to_owned()];
        Cache::new(Some(&config::Cache { collections, megabytes: 1 }), "public").expect("a cache")
    }

    #[test]
    fn only_declared_and_steady_reads_are_kept() {
        let cache = cache();
        let films = || steady("public", "films", None);
        assert!(cache.may_keep(&read(vec![films(), steady("shop", "orders", None)], "1")));
        assert!(!cache.may_keep(&read(Vec::new(), "1")), "its collections are not known");
        assert!(!cache.may_keep(&read(vec![films(), steady("public", "users", None)], "1")), "one is not declared");
        assert!(!cache.may_keep(&read(vec![steady("shop", "films", None)], "1")), "that of another schema");
        assert!(!cache.may_keep(&read(vec![steady("public", "films", Some("it is a view"))], "1")));
        for value in ["now", "{Today}", "[YESTERDAY,)", "tomorrow", r"{n\ow}", r#"[n"o"w,)"#, r#"{"(\"\"No\"\"w)"}"#] {
            assert!(!cache.may_keep(&read(vec![films()], value)), "{value}");
        }
        let cast = Statement { sql: "SELECT CAST(a AS date)".to_owned(), ..read(vec![films()], "1") };
        assert!(!cache.may_keep(&cast));
    }

    #[test]
    fn an_answer_is_given_out_for_its_version_and_its_caller_alone() {
        let cache = cache();
        let names =
            ["shop/app", "app", "", "shop/other", "other", "", "shop/app", "app", "TimeZone=UTC"].map(Arc::<str>::from);
        let read = read(vec![steady("public", "films", None)], "1");
        let look = |caller: usize, frame: &str| {
            let reader = (&names[caller], &names[caller + 1], &names[caller + 2]);
            cache.lookup(reader, &read, || frame.to_owned()).expect("a read to be kept")
        };
        let first = look(0, "[]");
        assert_eq!(first.statement().parameters.last(), Some(&Some(String::new())));
        assert!(first.hit(None).is_none() && first.hit(Some("")).is_none() && first.hit(Some("v1")).is_none());
        let answer = |text: &'static str| Some(Answered { text: text.as_bytes(), ends: vec![text.len()], rows: 1 });
        first.carried_out(Some("v1".to_owned()), answer("one"));
        let second = look(0, "[]");
        assert_eq!(second.statement().parameters.last(), Some(&Some("v1".to_owned())));
        assert_eq!(second.hit(Some("v1")).expect("the answer").text, "one");
        assert!(second.hit(Some("v2")).is_none() && second.hit(None).is_none());
        assert!(look(3, "[]").hit(Some("v1")).is_none(), "another caller");
        assert!(look(6, "[]").hit(Some("v1")).is_none(), "another session's settings");
        assert!(look(0, "").hit(Some("v1")).is_none(), "another form");
        // Neither an answer without a version nor one that goes on replaces it.
        look(0, "[]").carried_out(None, answer("two"));
        look(0, "[]").carried_out(Some("v2".to_owned()), None);
        assert!(look(0, "[]").hit(Some("v1")).is_some());
        look(0, "[]").carried_out(Some("v2".to_owned()), answer("three"));
        assert!(look(0, "[]").hit(Some("v1")).is_none());
        assert_eq!(look(0, "[]").hit(Some("v2")).expect("the answer").text, "three");
        let late = look(0, "[]");
        cache.catalog_changed(&Catalog::default());
        assert!(look(0, "[]").hit(Some("v2")).is_none());
        late.carried_out(Some("v2".to_owned()), answer("of before"));
        assert!(look(0, "[]").hit(Some("v2")).is_none());
        assert_eq!((cache.bytes.get(), cache.entries.get()), (0, 0));
    }
}
