//! Reads in PostgREST's dialect.

use serde_json::{Value, json};

use crate::SCHEMA;
use crate::server::Gateway;

async fn gateway(name: &str) -> Gateway {
    Gateway::start(
        name,
        SCHEMA,
        json!({"search": {"films": ["title"], "notes": ["body"]}, "searchConfiguration": "english"}),
    )
    .await
}

/// The values of one column.
fn column(rows: &Value, name: &str) -> Vec<Value> {
    rows.as_array().expect("an array").iter().map(|row| row[name].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters() {
    let gateway = gateway("filters").await;
    let cases: &[(&str, &[i64])] = &[
        ("id=eq.1", &[1]),
        ("id=neq.1", &[2, 3, 4, 5]),
        ("year=gt.1962", &[3, 4]),
        ("year=gte.1962&year=lt.1985", &[2]),
        ("year=lte.1953", &[1]),
        ("year=not.eq.1985", &[1, 2]),
        ("year=is.null", &[5]),
        ("year=not.is.null", &[1, 2, 3, 4]),
        ("year=is.not_null", &[1, 2, 3, 4]),
        ("plain=is.true", &[1, 4]),
        ("plain=is.unknown", &[3, 5]),
        ("plain=isdistinct.true", &[2, 3, 5]),
        ("title=like.*o*", &[1, 2, 4, 5]),
        ("title=like(any).{Ran,V*}", &[3, 4]),
        ("title=like(all).{*o*,*T*}", &[1]),
        ("title=ilike.*STORY", &[1]),
        ("title=match.^[A-C]", &[2]),
        ("title=imatch.^[v-w]", &[4]),
        ("id=in.(1,3,9)", &[1, 3]),
        ("id=not.in.(1,3)", &[2, 4, 5]),
        ("id=in.()", &[]),
        ("id=eq(any).{1,2}", &[1, 2]),
        ("title=in.(\"Orphan, \\\"quoted\\\"\",Ran)", &[3, 5]),
        ("title=eq.Orphan, \"quoted\"", &[5]),
        ("rating=eq.R", &[3, 4]),
        ("rating=in.(G,R)", &[1, 3, 4]),
        ("tags=cs.{japan}", &[1, 3]),
        ("tags=cd.{paris,berlin}", &[2, 4]),
        ("tags=ov.{war,paris}", &[2, 3]),
        ("length=cs.[86,87]", &[2]),
        ("length=ov.[130,155)", &[1, 3]),
        ("length=sl.[140,150)", &[1, 2]),
        ("length=sr.[140,150)", &[3]),
        ("length=nxl.[100,110)", &[1, 3]),
        ("length=nxr.[100,137)", &[1, 2]),
        ("length=adj.[136,140)", &[1]),
        ("details->score=gt.8", &[1, 3]),
        ("details->>score=eq.7.9", &[2]),
        ("details->cast->0->>name=eq.Ryu", &[1]),
        ("details=cs.{\"score\": 8.2}", &[3]),
        ("search=fts(english).story", &[1]),
        ("search=plfts(english).tokyo stories", &[1]),
        ("title=wfts(english).vagabond or ran", &[3, 4]),
        ("title=phfts(english).tokyo story", &[1]),
        ("search=not.fts(english).story", &[2, 3, 4, 5]),
        ("or=(id.eq.1,year.eq.1985)", &[1, 3, 4]),
        ("and=(year.eq.1985,rating.eq.R,id.gt.3)", &[4]),
        ("or=(id.eq.1,and(year.eq.1985,not.or(id.eq.4,id.eq.9)))", &[1, 3]),
        ("not.or=(id.eq.1,id.eq.2)", &[3, 4, 5]),
        ("not.and=(year.eq.1985,id.eq.3)", &[1, 2, 4, 5]),
        ("or=(title.eq.\"Orphan, \\\"quoted\\\"\",tags.cs.{war,japan})", &[3, 5]),
        ("or=(id.in.(1,2),title.not.like.*a*,length.ov.[150,151))", &[1, 2, 3]),
        ("released=gte.1962-01-01&released=lt.1970-01-01", &[2]),
        ("price=eq.9.5", &[1]),
    ];
    for (filter, wanted) in cases {
        let encoded =
            filter.replace('%', "%25").replace('"', "%22").replace(' ', "%20").replace('{', "%7B").replace('}', "%7D");
        let encoded = encoded
            .replace('>', "%3E")
            .replace('\\', "%5C")
            .replace('^', "%5E")
            .replace('[', "%5B")
            .replace(']', "%5D");
        let answer = gateway.get(&format!("/films?select=id&order=id&{encoded}")).await;
        assert_eq!(
            column(&answer.ok(), "id"),
            wanted.iter().map(|id| json!(id)).collect::<Vec<_>>(),
            "{filter}: {}",
            gateway.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selects_and_embedding() {
    let gateway = gateway("selects").await;
    let cases: &[(&str, Value)] = &[
        ("/films?select=id,name:title,year::text&id=eq.1", json!([{"id": 1, "name": "Tokyo Story", "year": "1953"}])),
        ("/films?select=s:details->score,details->cast->0->>name&id=eq.1", json!([{"s": 8.1, "name": "Ryu"}])),
        ("/films?select=price,tags&id=eq.2", json!([{"price": 12.0, "tags": ["paris"]}])),
        ("/films?select=tags->0&id=eq.1", json!([{"tags": "family"}])),
        // To one, by the table with a hint, by a column, by the foreign key.
        (
            "/films?select=title,directors!films_director_id_fkey(name)&id=eq.2",
            json!([{"title": "Cleo from 5 to 7", "directors": {"name": "Varda"}}]),
        ),
        ("/films?select=id,d:directors!director_id(name)&id=eq.1", json!([{"id": 1, "d": {"name": "Ozu"}}])),
        (
            "/films?select=id,director:director_id(name),producer_id(name)&id=eq.1",
            json!([{"id": 1, "director": {"name": "Ozu"}, "producer_id": null}]),
        ),
        (
            "/films?select=id,films_producer_id_fkey(name)&id=eq.3",
            json!([{"id": 3, "films_producer_id_fkey": {"name": "Kurosawa"}}]),
        ),
        // To many.
        (
            "/directors?select=name,films!director_id(title)&films.order=title.desc&order=id&id=in.(1,2)",
            json!([
            {"name": "Ozu", "films": [{"title": "Tokyo Story"}]}, {"name": "Varda", "films": [{"title": "Vagabond"}, {"title": "Cleo from 5 to 7"}]}]),
        ),
        (
            "/directors?select=name,films!director_id(id)&films.limit=1&films.order=id.desc&id=eq.2",
            json!([{"name": "Varda", "films": [{"id": 4}]}]),
        ),
        (
            "/directors?select=name,films!director_id(id)&films.year=lt.1970&order=id",
            json!([
            {"name": "Ozu", "films": [{"id": 1}]}, {"name": "Varda", "films": [{"id": 2}]}, {"name": "Kurosawa", "films": []}]),
        ),
        (
            "/directors?select=name,films!director_id!inner(id)&films.year=lt.1960",
            json!([{"name": "Ozu", "films": [{"id": 1}]}]),
        ),
        ("/directors?select=name,films!director_id!inner()&films.year=lt.1960", json!([{"name": "Ozu"}])),
        (
            "/directors?select=name,films!director_id(id)&films.or=(id.eq.3,id.eq.4)&id=eq.3",
            json!([{"name": "Kurosawa", "films": [{"id": 3}]}]),
        ),
        // One to one.
        (
            "/films?select=id,technical_specs(camera)&order=id&id=lt.3",
            json!([
            {"id": 1, "technical_specs": {"camera": "Mitchell"}}, {"id": 2, "technical_specs": null}]),
        ),
        // Many to many, and nested.
        (
            "/films?select=id,actors(name)&actors.order=name&id=eq.1",
            json!([{"id": 1, "actors": [{"name": "Hara"}, {"name": "Ryu"}]}]),
        ),
        (
            "/actors?select=name,films(title,director_id(name))&id=eq.3",
            json!([
            {"name": "Marchand", "films": [{"title": "Cleo from 5 to 7", "director_id": {"name": "Varda"}}]}]),
        ),
        (
            "/films?select=id,roles(character,actors(name))&roles.order=character&id=eq.1",
            json!([{"id": 1, "roles": [
            {"character": "Noriko", "actors": {"name": "Hara"}}, {"character": "Shukichi", "actors": {"name": "Ryu"}}]}]),
        ),
        (
            "/films?select=id,roles(character,actors!inner(name))&roles.actors.name=eq.Hara&id=eq.1",
            json!([{"id": 1, "roles": [
            {"character": "Noriko", "actors": {"name": "Hara"}}]}]),
        ),
        // Spread.
        (
            "/films?select=id,...director_id(director:name)&order=id&id=gte.4",
            json!([{"id": 4, "director": "Varda"}, {"id": 5, "director": null}]),
        ),
        // Null tests of what is embedded, and order by it.
        ("/films?select=id,director_id()&director_id=is.null", json!([{"id": 5}])),
        ("/films?select=id,d:director_id()&d=is.null", json!([{"id": 5}])),
        ("/films?select=id,actors()&actors=not.is.null&order=id", json!([{"id": 1}, {"id": 2}, {"id": 4}])),
        (
            "/films?select=id,d:director_id(name)&order=d(name).desc.nullslast,id&limit=2",
            json!([
            {"id": 2, "d": {"name": "Varda"}}, {"id": 4, "d": {"name": "Varda"}}]),
        ),
        // Aggregates.
        ("/films?select=year,count()&year=eq.1985", json!([{"year": 1985, "count": 2}])),
        ("/films?select=n:count(),price.sum(),top:price.max()::text", json!([{"n": 5, "sum": 28.75, "top": "12.00"}])),
        (
            "/films?select=rating,id.avg()::int4&order=rating",
            json!([{"rating": "G", "avg": 1}, {"rating": "PG", "avg": 4}, {"rating": "R", "avg": 4}]),
        ),
        (
            "/directors?select=name,films!director_id(count())&order=id",
            json!([
            {"name": "Ozu", "films": [{"count": 1}]}, {"name": "Varda", "films": [{"count": 2}]}, {"name": "Kurosawa", "films": [{"count": 1}]}]),
        ),
        // Names that need quotes, a view, a schema.
        ("/odd%20name?select=%22sel%2Cect%22", json!([])),
        ("/recent?order=id&select=id", json!([{"id": 3}, {"id": 4}])),
        ("/public.recent?select=id&id=eq.3", json!([{"id": 3}])),
        ("/films?select=id&order=year.desc.nullslast,id.desc&limit=2&offset=1", json!([{"id": 3}, {"id": 2}])),
        ("/films?select=id&order=year.nullsfirst&limit=1", json!([{"id": 5}])),
        ("/films?select=id&order=details->score.desc.nullslast&limit=1", json!([{"id": 3}])),
    ];
    for (path, wanted) in cases {
        let answer = gateway.get(&path.replace('>', "%3E")).await;
        assert_eq!(answer.ok(), *wanted, "{path}: {}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_counts_and_forms() {
    let gateway = gateway("ranges").await;
    let token = gateway.token("shop/app");
    let answer = gateway.get("/films?select=id&order=id&limit=2&offset=1").await;
    assert_eq!((answer.status, answer.header("content-range")), (200, "1-2/*"));
    let counted = gateway.send(&token, "GET", "/films?select=id&limit=2", &[("prefer", "count=exact")], None).await;
    assert_eq!((counted.status, counted.header("content-range")), (206, "0-1/5"));
    assert_eq!(counted.header("preference-applied"), "count=exact");
    let ranged = gateway
        .send(&token, "GET", "/films?select=id&order=id", &[("range-unit", "items"), ("range", "3-9")], None)
        .await;
    assert_eq!(
        (ranged.status, ranged.header("content-range"), ranged.ok()),
        (200, "3-4/*", json!([{"id": 4}, {"id": 5}]))
    );
    let beyond = gateway.send(&token, "GET", "/films?offset=50", &[("prefer", "count=exact")], None).await;
    assert_eq!((beyond.status, beyond.json()["code"].as_str()), (416, Some("PGRST103")));
    let head = gateway.send(&token, "HEAD", "/films?year=eq.1985", &[("prefer", "count=exact")], None).await;
    assert_eq!((head.status, head.header("content-range"), head.text.as_str()), (200, "0-1/2", ""));
    let planned = gateway.send(&token, "GET", "/films?select=id", &[("prefer", "count=planned")], None).await;
    assert!(planned.header("content-range").starts_with("0-4/"), "{planned:?}");
    let inner = gateway
        .send(
            &token,
            "HEAD",
            "/directors?select=name,films!director_id!inner(id)&films.year=gt.1980",
            &[("prefer", "count=exact")],
            None,
        )
        .await;
    assert_eq!(inner.header("content-range"), "0-1/2");

    let object = [("accept", "application/vnd.pgrst.object+json")];
    assert_eq!(gateway.send(&token, "GET", "/films?select=id&id=eq.1", &object, None).await.ok(), json!({"id": 1}));
    let several = gateway.send(&token, "GET", "/films?select=id", &object, None).await;
    assert_eq!((several.status, several.json()["code"].as_str()), (406, Some("PGRST116")));
    let csv = gateway
        .send(&token, "GET", "/films?select=id,title,tags&order=id&id=in.(1,5)", &[("accept", "text/csv")], None)
        .await;
    assert_eq!(csv.text, "id,title,tags\n1,\"Tokyo Story\",\"{family,japan}\"\n5,\"Orphan, \"\"quoted\"\"\",");
    let stripped = gateway
        .send(
            &token,
            "GET",
            "/films?select=id,year&id=eq.5",
            &[("accept", "application/vnd.pgrst.array+json;nulls=stripped")],
            None,
        )
        .await;
    assert_eq!(stripped.ok(), json!([{"id": 5}]));
    assert_eq!(gateway.send(&token, "GET", "/films", &[("accept", "image/png")], None).await.status, 406);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_named() {
    let gateway = gateway("named").await;
    for (path, status, code) in [
        ("/nothing", 404, "PGRST205"),
        ("/films?colour=eq.1", 400, "PGRST204"),
        ("/films?select=colour", 400, "PGRST204"),
        ("/films?order=colour", 400, "PGRST204"),
        ("/films?id=is.5", 400, "PGRST100"),
        ("/films?id=what.5", 400, "PGRST100"),
        ("/films?id=5", 400, "PGRST100"),
        ("/films?or=(id.eq.1", 400, "PGRST100"),
        ("/films?or=()", 400, "PGRST100"),
        ("/films?limit=many", 416, "PGRST103"),
        ("/films?select=id,directors(name)", 300, "PGRST201"),
        ("/films?select=id,notes(body)", 400, "PGRST200"),
        ("/films?select=id&directors.name=eq.x", 400, "PGRST108"),
        ("/directors?select=id,...films!director_id(id.sum())", 400, "PGRST127"),
        ("/films?id=eq.abc", 400, "22P02"),
        ("/films?id=eq.99999999999", 400, "22003"),
        ("/films?id=like.*1*", 400, "42883"),
        ("/films?select=id::nothing", 400, "42704"),
        ("/films?select=id::text)%20FROM%20pg_authid--", 400, "PGRST100"),
        ("/films?title=fts(klingon).x", 400, "42704"),
        ("/servicedb.migrations", 404, "PGRST205"),
        ("/pg_catalog.pg_authid", 404, "PGRST205"),
        ("/films/1/2/3", 404, "PGRST125"),
        ("/films/99", 404, "SDB108"),
        ("/films/1,2", 400, "SDB104"),
        ("/recent/3", 400, "SDB104"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{path}: {answer:?} {}",
            gateway.log()
        );
        assert_eq!(answer.header("content-type"), "application/problem+json; charset=utf-8", "{path}");
        assert!(!answer.text.contains("SELECT"), "{path}: no SQL in a message: {answer:?}");
    }
    let profile =
        gateway.send(&gateway.token("shop/app"), "GET", "/films", &[("accept-profile", "pg_catalog")], None).await;
    assert_eq!((profile.status, profile.json()["code"].as_str()), (406, Some("PGRST106")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_streams() {
    let gateway = gateway("streams").await;
    gateway
        .admin
        .batch_execute("INSERT INTO notes (body) SELECT repeat('x', 1000) || n FROM generate_series(1, 3000) n")
        .await
        .expect("rows");
    let answer = gateway.get("/notes?select=id,body&order=id").await;
    assert_eq!(answer.header("content-length"), "", "beyond the buffer it is sent in pieces");
    let rows = answer.ok();
    assert_eq!(rows.as_array().map(Vec::len), Some(3000));
    assert_eq!(rows[2999]["body"], json!(format!("{}3000", "x".repeat(1000))));
    let counted = gateway
        .send(
            &gateway.token("shop/app"),
            "GET",
            "/notes?select=id,body&order=id&limit=2000",
            &[("prefer", "count=exact")],
            None,
        )
        .await;
    assert_eq!((counted.status, counted.header("content-range")), (206, "0-1999/3000"));
    let small = gateway.get("/notes?select=id&order=id&limit=2").await;
    assert_eq!(small.header("content-length"), small.text.len().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_100_mib_does_not_lie_in_memory() {
    let gateway = Gateway::start("memory", SCHEMA, json!({})).await;
    gateway
        .admin
        .batch_execute("INSERT INTO notes (body) SELECT repeat(md5(n::text), 1000) FROM generate_series(1, 3300) n")
        .await
        .expect("rows");
    let before = gateway.memory();
    let (length, last) = gateway.drain("/notes?select=body").await;
    assert!(length > 100 << 20 && last == b']', "{length}");
    let after = gateway.memory();
    println!("{before} KiB before, {after} KiB at most");
    assert!(after < 64 << 10, "{after} KiB at most, {before} before");
}
