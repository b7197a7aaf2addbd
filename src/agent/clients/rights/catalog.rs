//! What the database has: the relations that rights can be granted on, the rights of clients, row policies. All of it is
//! read from catalogs alone, by a superuser's session that resolves names in `pg_catalog`.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::right::{Kind, Right};
use crate::api::names::PostgresNames;

/// A relation with a name that rights can be granted on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relation {
    /// `r`, `p`, `v`, `m`, `f` or `S`, as in `pg_class.relkind`.
    pub kind: char,
    /// Whether it is a partition: it is reached through its table.
    pub is_partition: bool,
    /// Whether it belongs to the owner of the database, or to the application.
    pub is_tenants: bool,
    /// Whether row policies are enabled.
    pub has_row_security: bool,
    /// The columns; of tables that a declaration names alone.
    pub columns: Vec<String>,
    /// The sequences of its columns, with their schemas.
    pub sequences: Vec<(String, String)>,
    /// The row policies of Servicedb, by name.
    pub policies: BTreeMap<String, Policy>,
    /// Whether it has other row policies.
    pub has_other_policies: bool,
    /// Of a view: the tables that it reads with the rights of its owner, also through other views.
    pub reads_as_owner: Vec<(String, String)>,
    /// The tables that include its rows, in a database where there are row policies of Servicedb.
    pub ancestors: Vec<(String, String)>,
}

/// A row policy of Servicedb.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// By it its definition is recognised.
    pub comment: String,
    /// Whether its role has the right that it limits, on the table or a column.
    pub is_in_use: bool,
}

/// A right that a client has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The right.
    pub right: Right,
    /// Who granted it.
    pub grantor: String,
    /// Whether the client may grant it to others.
    pub grantable: bool,
}

/// The catalog of a database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// The tenant's schemas.
    pub schemas: BTreeSet<String>,
    /// The relations in them, by schema and name.
    pub relations: BTreeMap<(String, String), Relation>,
    /// The rights, by the client's role.
    pub held: BTreeMap<String, BTreeSet<Held>>,
}

/// The prefix of the names of Servicedb's row policies.
pub const POLICY_PREFIX: &str = "servicedb_";

const SCHEMAS: &str = "\
SELECT nspname::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> ALL (ARRAY['information_schema', 'servicedb', 'servicedb_extensions'])";

const RELATIONS: &str = "\
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relispartition,
       pg_get_userbyid(c.relowner) = ANY ($1::text[]) AND NOT EXISTS (
           SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'),
       c.relrowsecurity,
       CASE WHEN c.relname = ANY ($2::text[]) THEN
           ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
       ELSE ARRAY[]::text[] END,
       ARRAY(SELECT format('%s', o.polname) FROM pg_policy o WHERE o.polrelid = c.oid ORDER BY o.polname),
       ARRAY(SELECT COALESCE(obj_description(o.oid, 'pg_policy'), '') FROM pg_policy o
             WHERE o.polrelid = c.oid ORDER BY o.polname),
       ARRAY(SELECT EXISTS (
                 SELECT FROM (SELECT c.relacl AS acl UNION ALL
                              SELECT t.attacl FROM pg_attribute t WHERE t.attrelid = c.oid AND NOT t.attisdropped) l,
                      aclexplode(l.acl) x
                 WHERE x.grantee = ANY (o.polroles)
                   AND x.privilege_type = CASE o.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                                        WHEN 'd' THEN 'DELETE' ELSE x.privilege_type END)
             FROM pg_policy o WHERE o.polrelid = c.oid ORDER BY o.polname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($3::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')";

const SEQUENCES: &str = "\
SELECT tn.nspname::text, t.relname::text, sn.nspname::text, s.relname::text
FROM pg_depend d
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
  AND d.refobjsubid > 0 AND tn.nspname = ANY ($1::text[])";

/// A view reads with the rights of its own owner what it reads through another, whatever that one declares.
const VIEWS: &str = "\
WITH RECURSIVE reads AS (
    SELECT r.ev_class AS view, d.refobjid AS relation
    FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    WHERE d.refobjid <> r.ev_class
), through AS (
    SELECT view, relation FROM reads
    UNION
    SELECT t.view, r.relation FROM through t JOIN reads r ON r.view = t.relation
)
SELECT DISTINCT vn.nspname::text, v.relname::text, tn.nspname::text, t.relname::text
FROM through x
JOIN pg_class v ON v.oid = x.view JOIN pg_namespace vn ON vn.oid = v.relnamespace
JOIN pg_class t ON t.oid = x.relation AND t.relkind IN ('r', 'p') JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE vn.nspname = ANY ($1::text[])
  AND NOT COALESCE((SELECT option_value::boolean FROM pg_options_to_table(v.reloptions)
                    WHERE option_name = 'security_invoker'), false)";

/// The tables that include the rows of another: as its partitioned table, or by inheritance.
const ANCESTORS: &str = "\
WITH RECURSIVE above AS (
    SELECT i.inhrelid AS child, i.inhparent AS ancestor FROM pg_inherits i
    UNION
    SELECT a.child, i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.ancestor
)
SELECT cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text
FROM above a
JOIN pg_class c ON c.oid = a.child AND c.relkind IN ('r', 'p') JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = a.ancestor AND p.relkind IN ('r', 'p') JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE cn.nspname = ANY ($1::text[]) ORDER BY 1, 2, 3, 4";

/// Every right of the roles in `$1`, whatever it is on: kind, schema, name, column, privilege, role, grantor, grantable.
const HELD: &str = "\
WITH roles AS (SELECT oid, rolname::text AS name FROM pg_roles WHERE rolname = ANY ($1::text[]))
SELECT a.*, roles.name, pg_get_userbyid(a.grantor)::text FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, n.nspname::text AS schema,
           c.relname::text AS object, '' AS part, x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) x
    UNION ALL
    SELECT 'column', n.nspname, c.relname, t.attname, x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
         aclexplode(t.attacl) x WHERE NOT t.attisdropped
    UNION ALL
    SELECT 'schema', n.nspname, '', '', x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_namespace n, aclexplode(n.nspacl) x
    UNION ALL
    SELECT 'function', n.nspname, format('%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), '',
           x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) x
    UNION ALL
    SELECT 'database', '', d.datname, '', x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_database d, aclexplode(d.datacl) x WHERE d.datname = current_database()
    UNION ALL
    SELECT 'role', '', pg_get_userbyid(m.roleid), '', 'MEMBER', m.member, m.grantor, m.admin_option
    FROM pg_auth_members m
    UNION ALL
    SELECT 'later', COALESCE(n.nspname, ''),
           CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES'
                                WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
           '', x.privilege_type, x.grantee, d.defaclrole, x.is_grantable
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) x
    WHERE x.grantee <> d.defaclrole
    UNION ALL
    SELECT 'large object', '', l.oid::text, '', x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_largeobject_metadata l, aclexplode(l.lomacl) x
    UNION ALL
    SELECT 'server', '', s.srvname, '', x.privilege_type, x.grantee, x.grantor, x.is_grantable
    FROM pg_foreign_server s, aclexplode(s.srvacl) x
    UNION ALL
    SELECT 'owned', '', pg_describe_object(o.classid, o.objid, o.objsubid), '', 'OWNERSHIP', o.refobjid, o.refobjid, false
    FROM pg_shdepend o
    WHERE o.deptype = 'o' AND o.refclassid = 'pg_authid'::regclass
      AND o.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      -- Defaults for what it creates itself are no object.
      AND o.classid <> 'pg_default_acl'::regclass
) a JOIN roles ON roles.oid = a.grantee";

impl Catalog {
    /// Reads it.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn read(
        client: &Client,
        names: &PostgresNames,
        roles: &[String],
        named: &[String],
    ) -> Result<Self, tokio_postgres::Error> {
        let mut catalog = Self::default();
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let schemas = client.query(SCHEMAS, &[]).await?;
        catalog.schemas = schemas.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let schemas: Vec<&str> = catalog.schemas.iter().map(String::as_str).collect();
        let owners = [names.owner(), names.app()];
        let mut relations = BTreeMap::new();
        for row in client.query(RELATIONS, &[&owners.as_slice(), &named, &schemas]).await? {
            let key = (row.try_get(0)?, row.try_get(1)?);
            let policies: Vec<String> = row.try_get(7)?;
            let (comments, in_use): (Vec<String>, Vec<bool>) = (row.try_get(8)?, row.try_get(9)?);
            let found = comments.into_iter().zip(in_use).map(|(comment, is_in_use)| Policy { comment, is_in_use });
            let (ours, others): (Vec<_>, Vec<_>) =
                policies.into_iter().zip(found).partition(|(name, _)| name.starts_with(POLICY_PREFIX));
            let relation = Relation {
                kind: row.try_get::<_, String>(2)?.chars().next().unwrap_or_default(),
                is_partition: row.try_get(3)?,
                is_tenants: row.try_get(4)?,
                has_row_security: row.try_get(5)?,
                columns: row.try_get(6)?,
                policies: ours.into_iter().collect(),
                has_other_policies: !others.is_empty(),
                ..Relation::default()
            };
            relations.insert(key, relation);
        }
        for row in client.query(SEQUENCES, &[&schemas]).await? {
            if let Some(table) = relations.get_mut(&(row.try_get(0)?, row.try_get(1)?)) {
                table.sequences.push((row.try_get(2)?, row.try_get(3)?));
            }
        }
        for row in client.query(VIEWS, &[&schemas]).await? {
            if let Some(view) = relations.get_mut(&(row.try_get(0)?, row.try_get(1)?)) {
                view.reads_as_owner.push((row.try_get(2)?, row.try_get(3)?));
            }
        }
        let ancestors = match relations.values().any(|relation: &Relation| !relation.policies.is_empty()) {
            true => client.query(ANCESTORS, &[&schemas]).await?,
            false => Vec::new(),
        };
        for row in ancestors {
            if let Some(table) = relations.get_mut(&(row.try_get(0)?, row.try_get(1)?)) {
                table.ancestors.push((row.try_get(2)?, row.try_get(3)?));
            }
        }
        for row in client.query(HELD, &[&roles]).await? {
            let Some(kind) = Kind::parse(row.try_get(0)?) else { continue };
            let right = Right {
                kind,
                schema: row.try_get(1)?,
                object: row.try_get(2)?,
                column: row.try_get(3)?,
                privilege: row.try_get(4)?,
            };
            let held = Held { right, grantable: row.try_get(7)?, grantor: row.try_get(9)? };
            catalog.held.entry(row.try_get(8)?).or_default().insert(held);
        }
        client.batch_execute("COMMIT").await?;
        catalog.relations = relations;
        Ok(catalog)
    }
}
