//! Collations whose recorded version is another one than the server's.

use servicedb::agent::collations::changed;

use crate::database;

#[tokio::test]
async fn a_changed_version_names_the_collation_and_its_indexes() {
    let database = database("collations").await;
    let admin = database.superuser().await;
    let client = &admin.client;
    client
        .batch_execute(
            r#"CREATE COLLATION "Grün" (provider = icu, locale = 'de');
               CREATE COLLATION unused (provider = icu, locale = 'fr');
               CREATE TABLE words (id int PRIMARY KEY, word text COLLATE "Grün", other text);
               CREATE INDEX by_word ON words (word);
               CREATE INDEX "by Expression" ON words ((lower(other COLLATE "Grün") = 'a'));
               CREATE INDEX by_other ON words (other);"#,
        )
        .await
        .expect("a table");
    assert_eq!(changed(client).await.expect("an answer"), []);

    client
        .batch_execute("UPDATE pg_collation SET collversion = '1.2' WHERE collname IN ('Grün', 'unused')")
        .await
        .expect("another version");
    let found = changed(client).await.expect("an answer");
    assert_eq!(found.len(), 1, "nothing depends on the other one: {found:?}");
    assert_eq!(found[0].name.as_deref(), Some(r#"public."Grün""#));
    assert_eq!(found[0].recorded, "1.2");
    assert!(!found[0].actual.is_empty() && found[0].actual != "1.2");
    assert_eq!(found[0].indexes, [r#"public."by Expression""#, "public.by_word"]);
    assert_eq!(found[0].index_count, 2);

    client.batch_execute(r#"REINDEX TABLE words; ALTER COLLATION "Grün" REFRESH VERSION"#).await.expect("the repair");
    assert_eq!(changed(client).await.expect("an answer"), []);
}
