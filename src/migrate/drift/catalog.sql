-- The catalog of a database, for all objects that migrations create: (kind, identity, definition),
-- one row per object. Two databases built by the same statements return the same rows.
--
-- The session needs search_path = pg_catalog, so that the names in the definitions come out
-- qualified, and the same TimeZone, DateStyle, IntervalStyle, extra_float_digits, bytea_output,
-- xmloption and quote_all_identifiers on both sides, since constants in defaults and partition
-- bounds are printed by them. It needs no rights except to log in, and runs no user-defined code.
-- With jit = off and enable_nestloop = off its time grows linearly with the number of objects, also
-- if the catalog was not analyzed yet.
--
-- Excluded: data, current values of sequences, statistics, OIDs, the order of columns (a column
-- that was dropped and added again is the last one), versions of extensions, members of an
-- extension, and objects that are implied by another object.
WITH
-- A login is replaced at each rotation: it is represented by the roles that it belongs to. This does
-- not apply to a superuser, nor to a role that cannot log in, nor to the owner of the database, which has LOGIN
-- for its jobs where pg_cron is declared.
role AS MATERIALIZED (
    SELECT r.oid,
           CASE WHEN r.rolcanlogin AND NOT r.rolsuper AND g.names IS NOT NULL
                     AND r.oid <> (SELECT d.datdba FROM pg_database d WHERE d.datname = current_database())
                THEN 'login of ' || g.names
                ELSE quote_ident(r.rolname) END AS name
    FROM pg_roles r
    -- One role may be granted more than once, by several grantors.
    LEFT JOIN (SELECT m.member,
                      string_agg(DISTINCT quote_ident(p.rolname) COLLATE "C", '+'
                                 ORDER BY quote_ident(p.rolname) COLLATE "C") AS names
               FROM pg_auth_members m JOIN pg_roles p ON p.oid = m.roleid GROUP BY m.member) g ON g.member = r.oid
    UNION ALL
    SELECT 0, 'PUBLIC'
),
-- What spec.clients grants is kept by the agent, which reports what differs: it is no difference of the
-- schema. These roles have these names alone, and so have the row policies.
client AS MATERIALIZED (
    SELECT r.oid FROM pg_roles r WHERE starts_with(r.rolname, current_database() || '_c_')
),
member AS MATERIALIZED (
    SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
),
-- Temporary schemas and those of TOAST begin with pg_, which is reserved. The agent's own schemas do
-- not belong to the migrations.
space AS MATERIALIZED (
    SELECT n.oid, n.nspowner, n.nspacl, quote_ident(n.nspname) AS name
    FROM pg_namespace n
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'servicedb', 'servicedb_extensions')
),
relation AS MATERIALIZED (
    SELECT c.oid, s.name || '.' || quote_ident(c.relname) AS identity, s.name AS space,
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                          WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index'
                          WHEN 'c' THEN 'type' ELSE 'table' END AS kind,
           c.relname, c.relkind, c.relowner, c.relacl, c.relpersistence, c.relam, c.reltablespace, c.reloptions,
           c.reltoastrelid, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relispartition,
           c.relpartbound, c.reloftype
    FROM pg_class c JOIN space s ON s.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND c.relkind <> 't'
      AND NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)
),
-- Which column a sequence belongs to: 'i' for an identity, 'a' for a serial or OWNED BY.
owned AS MATERIALIZED (
    SELECT d.objid AS sequence, d.refobjid AS relid, d.refobjsubid AS attnum, d.deptype,
           t.identity || '.' || quote_ident(a.attname) AS identity
    FROM pg_depend d
    JOIN relation q ON q.oid = d.objid AND q.relkind = 'S'
    LEFT JOIN relation t ON t.oid = d.refobjid
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass
      AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
),
-- A sequence's options that differ from the defaults.
sequence AS MATERIALIZED (
    SELECT s.seqrelid AS oid, format_type(s.seqtypid, NULL) AS type,
           concat_ws(' ',
               CASE WHEN s.seqstart <> CASE WHEN s.seqincrement > 0 THEN s.seqmin ELSE s.seqmax END
                    THEN 'START ' || s.seqstart END,
               CASE WHEN s.seqincrement <> 1 THEN 'INCREMENT ' || s.seqincrement END,
               CASE WHEN s.seqmin <> CASE WHEN s.seqincrement > 0 THEN 1 ELSE l.lowest END
                    THEN 'MINVALUE ' || s.seqmin END,
               CASE WHEN s.seqmax <> CASE WHEN s.seqincrement > 0 THEN l.highest ELSE -1 END
                    THEN 'MAXVALUE ' || s.seqmax END,
               CASE WHEN s.seqcache <> 1 THEN 'CACHE ' || s.seqcache END,
               CASE WHEN s.seqcycle THEN 'CYCLE' END) AS options
    FROM pg_sequence s
    CROSS JOIN LATERAL (
        SELECT CASE s.seqtypid WHEN 'int2'::regtype THEN (-32768)::int8 WHEN 'int4'::regtype THEN (-2147483648)::int8
                               ELSE (-9223372036854775807 - 1)::int8 END AS lowest,
               CASE s.seqtypid WHEN 'int2'::regtype THEN 32767::int8 WHEN 'int4'::regtype THEN 2147483647::int8
                               ELSE 9223372036854775807::int8 END AS highest) l
),
-- Settings of an index's columns beyond its definition: ALTER INDEX ... SET STATISTICS.
index_statistics AS MATERIALIZED (
    SELECT a.attrelid AS oid, string_agg('STATISTICS ' || a.attnum || ' ' || a.attstattarget, ' ' ORDER BY a.attnum) AS text
    FROM pg_attribute a JOIN relation r ON r.oid = a.attrelid AND r.kind = 'index'
    WHERE a.attstattarget >= 0 AND a.attnum > 0 GROUP BY a.attrelid
),
-- Properties of an index that neither pg_get_indexdef nor pg_get_constraintdef returns.
index_extras AS MATERIALIZED (
    SELECT i.indexrelid AS oid,
           concat_ws(' ',
               CASE WHEN NOT i.indisvalid THEN 'INVALID' END,
               CASE WHEN i.indisclustered THEN 'CLUSTER' END,
               CASE WHEN i.indisreplident THEN 'REPLICA IDENTITY' END,
               'TABLESPACE ' || quote_ident(t.spcname),
               s.text) AS text
    FROM pg_index i
    JOIN relation c ON c.oid = i.indexrelid
    LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
    LEFT JOIN index_statistics s ON s.oid = i.indexrelid
),
-- Foreign keys with disabled triggers: they exist and are not enforced.
disabled AS MATERIALIZED (
    SELECT DISTINCT tgconstraint AS oid FROM pg_trigger WHERE tgisinternal AND tgenabled <> 'O' AND tgconstraint <> 0
),
-- Every object: where its comments are found, who owns it (0 for nobody of its own), and its
-- rights with the letter by which acldefault knows its class.
object AS (
    SELECT 'pg_namespace'::regclass::oid AS classid, s.oid AS objid, 0 AS objsubid, 'schema' AS kind,
           s.name AS identity, ''::text AS definition, s.nspowner AS owner, s.nspacl AS acl, 'n'::"char" AS class
    FROM space s
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = s.oid)
  UNION ALL
    -- By name alone: the version is the image's.
    SELECT 'pg_extension'::regclass, x.oid, 0, 'extension', quote_ident(x.extname),
           'in schema ' || quote_ident(n.nspname), 0, NULL, NULL
    FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
  UNION ALL
    SELECT 'pg_class'::regclass, r.oid, 0, r.kind, r.identity,
           concat_ws(', ',
               CASE r.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'logged' END,
               'partitioned by ' || pg_get_partkeydef(r.oid),
               'of type ' || format_type(nullif(r.reloftype, 0), NULL),
               'server ' || quote_ident(fs.srvname),
               'options ' || array_to_string(ft.ftoptions, ' '),
               'access method ' || quote_ident(nullif(am.amname, 'heap')),
               'tablespace ' || quote_ident(ts.spcname),
               CASE WHEN r.relrowsecurity AND NOT EXISTS (
                        SELECT FROM pg_policy p WHERE p.polrelid = r.oid AND p.polname = 'servicedb_everyone')
                    THEN 'row level security' END,
               CASE WHEN r.relforcerowsecurity THEN 'row level security for the owner' END,
               -- The index that is the identity says so itself.
               CASE r.relreplident WHEN 'n' THEN 'replica identity nothing' WHEN 'f' THEN 'replica identity full'
                                   WHEN 'i' THEN 'replica identity index' END,
               'with ' || nullif((SELECT string_agg(o, ' ' ORDER BY o COLLATE "C") FROM unnest(r.reloptions) o), ''),
               'with toast ' || nullif((SELECT string_agg(o, ' ' ORDER BY o COLLATE "C")
                                        FROM unnest(t.reloptions) o), '')),
           r.relowner, r.relacl, 'r'
    FROM relation r
    LEFT JOIN pg_class t ON t.oid = r.reltoastrelid
    LEFT JOIN pg_am am ON am.oid = r.relam
    LEFT JOIN pg_tablespace ts ON ts.oid = r.reltablespace
    LEFT JOIN pg_foreign_table ft ON ft.ftrelid = r.oid
    LEFT JOIN pg_foreign_server fs ON fs.oid = ft.ftserver
    WHERE r.relkind IN ('r', 'p', 'f')
  UNION ALL
    -- No part of the table's definition: one is said of two tables. An index says by itself what it is.
    SELECT NULL, NULL, NULL, CASE WHEN c.relispartition THEN 'partition' ELSE 'inheritance' END,
           c.identity || ' of ' || p.identity,
           concat_ws(' ', pg_get_expr(c.relpartbound, c.oid),
                          CASE WHEN i.inhdetachpending THEN 'DETACH PENDING' END), 0, NULL, NULL
    FROM pg_inherits i JOIN relation c ON c.oid = i.inhrelid JOIN relation p ON p.oid = i.inhparent
    WHERE c.relkind IN ('r', 'p', 'f')
  UNION ALL
    SELECT 'pg_class'::regclass, r.oid, 0, r.kind, r.identity,
           concat_ws(' ',
               'WITH ' || nullif((SELECT string_agg(o, ' ' ORDER BY o COLLATE "C") FROM unnest(r.reloptions) o), ''),
               'USING ' || quote_ident(nullif(am.amname, 'heap')), 'TABLESPACE ' || quote_ident(ts.spcname),
               pg_get_viewdef(r.oid)),
           r.relowner, r.relacl, 'r'
    FROM relation r
    LEFT JOIN pg_am am ON am.oid = r.relam
    LEFT JOIN pg_tablespace ts ON ts.oid = r.reltablespace
    WHERE r.relkind IN ('v', 'm')
  UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, 'column', r.identity || '.' || quote_ident(a.attname),
           d.definition, 0, a.attacl, 'c'
    FROM relation r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
    LEFT JOIN owned o ON o.relid = a.attrelid AND o.attnum = a.attnum AND o.deptype = 'i' AND a.attidentity <> ''
    LEFT JOIN relation q ON q.oid = o.sequence
    LEFT JOIN sequence s ON s.oid = o.sequence
    CROSS JOIN LATERAL (
        SELECT concat_ws(' ',
            format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN 'COLLATE ' || a.attcollation::regcollation END,
            CASE WHEN a.attnotnull THEN 'NOT NULL' END,
            CASE WHEN a.attgenerated = '' THEN 'DEFAULT ' || pg_get_expr(f.adbin, f.adrelid)
                 ELSE 'GENERATED ALWAYS AS (' || pg_get_expr(f.adbin, f.adrelid)
                      || CASE a.attgenerated WHEN 's' THEN ') STORED' ELSE ') VIRTUAL' END END,
            CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
                               WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
            -- The sequence's name is included if it is not the server's default.
            '(' || nullif(concat_ws(' ', nullif(s.options, ''), 'SEQUENCE NAME ' || nullif(q.identity,
                r.space || '.' || quote_ident(r.relname || '_' || a.attname || '_seq'))), '') || ')',
            CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN'
                WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END,
            CASE a.attcompression WHEN 'p' THEN 'COMPRESSION pglz' WHEN 'l' THEN 'COMPRESSION lz4' END,
            -- Not set is -1 before PostgreSQL 17, and NULL since.
            CASE WHEN a.attstattarget >= 0 THEN 'STATISTICS ' || a.attstattarget END,
            -- The two options that a person sets; a server may keep marks of its own beside them.
            'WITH ' || (SELECT string_agg(o, ' ' ORDER BY o COLLATE "C") FROM unnest(a.attoptions) o
                        WHERE o ~ '^n_distinct'),
            'OPTIONS ' || array_to_string(a.attfdwoptions, ' ')) AS definition
    ) d
    -- A view's columns are in its query, but for what is set on them.
    WHERE r.relkind IN ('r', 'p', 'f')
       OR (r.relkind = 'v' AND f.oid IS NOT NULL)
       OR (r.relkind = 'm' AND (a.attstattarget >= 0 OR array_to_string(a.attoptions, ' ') ~ 'n_distinct' OR a.attcompression <> ''
                                OR a.attstorage <> t.typstorage))
       OR (r.relkind IN ('v', 'm') AND EXISTS (SELECT FROM aclexplode(a.attacl) x
                                               WHERE x.grantee NOT IN (SELECT oid FROM client)))
       OR (r.relkind IN ('v', 'm') AND EXISTS (SELECT FROM pg_description x WHERE x.objoid = r.oid
                                  AND x.classoid = 'pg_class'::regclass AND x.objsubid = a.attnum))
  UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, 0, 'constraint', quote_ident(k.conname) || ' on ' || r.identity,
           concat_ws(' ', pg_get_constraintdef(k.oid),
               'WITH ' || nullif((SELECT string_agg(o, ' ' ORDER BY o COLLATE "C") FROM unnest(i.reloptions) o), ''),
               nullif(x.text, ''),
               CASE WHEN disabled.oid IS NOT NULL THEN 'TRIGGERS DISABLED' END), 0, NULL, NULL
    FROM pg_constraint k
    JOIN relation r ON r.oid = k.conrelid
    -- A foreign key names the index of the table that it refers to.
    LEFT JOIN relation i ON i.oid = k.conindid AND k.contype IN ('p', 'u', 'x')
    LEFT JOIN index_extras x ON x.oid = i.oid
    LEFT JOIN disabled ON disabled.oid = k.oid
    -- 't' is a trigger. A partition's constraint that came from its table is that one's, as is what a
    -- foreign key to a partitioned table has for each of the partitions, under names of its own.
    WHERE k.contype <> 't' AND k.conparentid = 0 AND (k.conislocal OR k.contype NOT IN ('c', 'n'))
    -- PostgreSQL 18 keeps NOT NULL here, too, and the column tells it.
      AND (k.contype <> 'n' OR k.connoinherit OR NOT k.convalidated)
  UNION ALL
    SELECT 'pg_class'::regclass, r.oid, 0, 'index', r.identity || ' on ' || t.identity,
           concat_ws(' ', pg_get_indexdef(r.oid), nullif(x.text, '')), 0, NULL, NULL
    FROM pg_index i
    JOIN relation r ON r.oid = i.indexrelid
    JOIN relation t ON t.oid = i.indrelid
    JOIN index_extras x ON x.oid = i.indexrelid
    LEFT JOIN pg_inherits h ON h.inhrelid = r.oid
    LEFT JOIN pg_class parent ON parent.oid = h.inhparent
    -- The constraint shows its index, and the index of a partitioned table those of the partitions, as
    -- long as they are like it.
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = r.oid AND k.contype IN ('p', 'u', 'x'))
      AND (parent.oid IS NULL OR parent.reloptions IS DISTINCT FROM r.reloptions)
  UNION ALL
    SELECT 'pg_class'::regclass, r.oid, 0, 'sequence', r.identity,
           concat_ws(' ', CASE r.relpersistence WHEN 'u' THEN 'UNLOGGED' END, s.type, nullif(s.options, ''),
               'OWNED BY ' || o.identity),
           r.relowner, r.relacl, 's'
    FROM relation r
    JOIN sequence s ON s.oid = r.oid
    LEFT JOIN owned o ON o.sequence = r.oid
    WHERE r.relkind = 'S' AND o.deptype IS DISTINCT FROM 'i'
  UNION ALL
    SELECT 'pg_trigger'::regclass, g.oid, 0, 'trigger', quote_ident(g.tgname) || ' on ' || r.identity,
           concat_ws(' ', pg_get_triggerdef(g.oid),
               CASE g.tgenabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ENABLED REPLICA'
                                WHEN 'A' THEN 'ENABLED ALWAYS' END), 0, NULL, NULL
    FROM pg_trigger g
    JOIN relation r ON r.oid = g.tgrelid
    LEFT JOIN pg_trigger parent ON parent.oid = g.tgparentid
    WHERE NOT g.tgisinternal AND (parent.oid IS NULL OR parent.tgenabled <> g.tgenabled)
  UNION ALL
    -- A view's query is a rule, too.
    SELECT 'pg_rewrite'::regclass, w.oid, 0, 'rule', quote_ident(w.rulename) || ' on ' || r.identity,
           concat_ws(' ', pg_get_ruledef(w.oid),
               CASE w.ev_enabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ENABLED REPLICA'
                                 WHEN 'A' THEN 'ENABLED ALWAYS' END), 0, NULL, NULL
    FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
    WHERE w.rulename <> '_RETURN'
  UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 0, 'policy', quote_ident(p.polname) || ' on ' || r.identity,
           concat_ws(' ',
               CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
               'FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                       WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
               'TO ' || (SELECT string_agg(DISTINCT role.name COLLATE "C", ', ' ORDER BY role.name COLLATE "C")
                         FROM unnest(p.polroles) x JOIN role ON role.oid = x),
               'USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
               'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'), 0, NULL, NULL
    FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
    WHERE NOT starts_with(p.polname, 'servicedb_')
  UNION ALL
    SELECT 'pg_statistic_ext'::regclass, x.oid, 0, 'statistics',
           s.name || '.' || quote_ident(x.stxname) || ' on ' || r.identity,
           concat_ws(' ', pg_get_statisticsobjdef(x.oid),
               CASE WHEN x.stxstattarget >= 0 THEN 'STATISTICS ' || x.stxstattarget END), x.stxowner, NULL, NULL
    FROM pg_statistic_ext x JOIN space s ON s.oid = x.stxnamespace JOIN relation r ON r.oid = x.stxrelid
  UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0,
           CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
           s.name || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')',
           CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid)
                ELSE concat_ws(' ',
                    -- With the modes and names of the arguments.
                    '(' || pg_get_function_arguments(p.oid) || ')', 'RETURNS ' || pg_get_function_result(p.oid),
                    p.provolatile, p.proparallel, a.aggkind, a.aggnumdirectargs,
                    'SFUNC ' || a.aggtransfn, 'STYPE ' || format_type(a.aggtranstype, NULL),
                    'SSPACE ' || a.aggtransspace, 'INITCOND ' || quote_literal(a.agginitval),
                    'FINALFUNC ' || a.aggfinalfn, a.aggfinalextra, a.aggfinalmodify,
                    'COMBINEFUNC ' || a.aggcombinefn, 'SERIALFUNC ' || a.aggserialfn,
                    'DESERIALFUNC ' || a.aggdeserialfn, 'SORTOP ' || a.aggsortop::regoperator,
                    'MSFUNC ' || a.aggmtransfn, 'MINVFUNC ' || a.aggminvtransfn, 'MFINALFUNC ' || a.aggmfinalfn,
                    a.aggmfinalextra, a.aggmfinalmodify,
                    'MSTYPE ' || CASE WHEN a.aggmtranstype <> 0 THEN format_type(a.aggmtranstype, NULL) END,
                    'MSSPACE ' || a.aggmtransspace, 'MINITCOND ' || quote_literal(a.aggminitval)) END,
           p.proowner, p.proacl, 'f'
    FROM pg_proc p
    JOIN space s ON s.oid = p.pronamespace
    LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
    -- The constructors of a range type come with it.
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                                                AND d.refclassid = 'pg_type'::regclass AND d.deptype = 'i')
  UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END,
           s.name || '.' || quote_ident(t.typname),
           CASE t.typtype
               WHEN 'e' THEN 'ENUM (' || coalesce((
                   SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                   FROM pg_enum e WHERE e.enumtypid = t.oid), '') || ')'
               WHEN 'c' THEN '(' || coalesce((
                   SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                              CASE WHEN a.attcollation NOT IN (0, y.typcollation)
                                   THEN 'COLLATE ' || a.attcollation::regcollation END), ', ' ORDER BY a.attnum)
                   FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '') || ')'
               WHEN 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod),
                   CASE WHEN t.typcollation NOT IN (0, b.typcollation)
                        THEN 'COLLATE ' || t.typcollation::regcollation END,
                   CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                   'DEFAULT ' || coalesce(pg_get_expr(t.typdefaultbin, 0), quote_literal(t.typdefault)),
                   -- PostgreSQL 17 keeps NOT NULL here, too.
                   (SELECT string_agg('CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid),
                                      ' ' ORDER BY k.conname)
                    FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype <> 'n'))
               WHEN 'r' THEN (
                   SELECT concat_ws(' ', 'RANGE OF', format_type(g.rngsubtype, NULL),
                       'COLLATE ' || nullif(g.rngcollation, 0)::regcollation,
                       'OPCLASS ' || quote_ident(n.nspname) || '.' || quote_ident(c.opcname),
                       'CANONICAL ' || nullif(g.rngcanonical::oid, 0)::regprocedure,
                       'DIFF ' || nullif(g.rngsubdiff::oid, 0)::regprocedure,
                       'MULTIRANGE ' || format_type(g.rngmultitypid, NULL))
                   FROM pg_range g JOIN pg_opclass c ON c.oid = g.rngsubopc JOIN pg_namespace n ON n.oid = c.opcnamespace
                   WHERE g.rngtypid = t.oid)
               ELSE concat_ws(' ', CASE WHEN t.typisdefined THEN 'BASE' ELSE 'SHELL' END, t.typinput, t.typoutput,
                   t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze, t.typlen, t.typbyval, t.typalign,
                   t.typstorage, t.typcategory, t.typispreferred, t.typdelim, t.typdefault) END,
           t.typowner, t.typacl, 'T'
    FROM pg_type t
    JOIN space s ON s.oid = t.typnamespace
    LEFT JOIN pg_type b ON b.oid = t.typbasetype
    -- A multirange comes with its range, an array with its element, a row type with its table.
    WHERE t.typtype <> 'm' AND (t.typtype <> 'c' OR EXISTS (SELECT FROM relation r WHERE r.oid = t.typrelid
                                                                                     AND r.relkind = 'c'))
      AND NOT EXISTS (SELECT FROM pg_type y WHERE y.typarray = t.oid)
      AND NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid)
  UNION ALL
    SELECT 'pg_collation'::regclass, c.oid, 0, 'collation', s.name || '.' || quote_ident(c.collname),
           -- The version is the library's, and the names of columns are not those of all versions.
           ((to_jsonb(c) - '{oid,collname,collnamespace,collowner,collversion}'::text[]))::text, c.collowner, NULL, NULL
    FROM pg_collation c JOIN space s ON s.oid = c.collnamespace
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_collation'::regclass AND e.objid = c.oid)
  UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, 0, 'operator',
           s.name || '.' || o.oprname || '(' || concat_ws(', ',
               CASE WHEN o.oprleft <> 0 THEN format_type(o.oprleft, NULL) ELSE 'NONE' END,
               format_type(o.oprright, NULL)) || ')',
           concat_ws(' ', nullif(o.oprcode::oid, 0)::regprocedure, 'COMMUTATOR ' || nullif(o.oprcom, 0)::regoperator,
               'NEGATOR ' || nullif(o.oprnegate, 0)::regoperator, 'RESTRICT ' || nullif(o.oprrest::oid, 0)::regproc,
               'JOIN ' || nullif(o.oprjoin::oid, 0)::regproc, CASE WHEN o.oprcanmerge THEN 'MERGES' END,
               CASE WHEN o.oprcanhash THEN 'HASHES' END), o.oprowner, NULL, NULL
    FROM pg_operator o JOIN space s ON s.oid = o.oprnamespace
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_operator'::regclass AND e.objid = o.oid)
  UNION ALL
    SELECT 'pg_opclass'::regclass, o.oid, 0, 'operator class',
           s.name || '.' || quote_ident(o.opcname) || ' using ' || quote_ident(am.amname),
           concat_ws(' ', format_type(o.opcintype, NULL), CASE WHEN o.opcdefault THEN 'DEFAULT' END,
               'FAMILY ' || quote_ident(n.nspname) || '.' || quote_ident(f.opfname),
               'STORAGE ' || CASE WHEN o.opckeytype <> 0 THEN format_type(o.opckeytype, NULL) END),
           o.opcowner, NULL, NULL
    FROM pg_opclass o
    JOIN space s ON s.oid = o.opcnamespace
    JOIN pg_am am ON am.oid = o.opcmethod
    JOIN pg_opfamily f ON f.oid = o.opcfamily
    JOIN pg_namespace n ON n.oid = f.opfnamespace
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_opclass'::regclass AND e.objid = o.oid)
  UNION ALL
    SELECT 'pg_opfamily'::regclass, f.oid, 0, 'operator family',
           s.name || '.' || quote_ident(f.opfname) || ' using ' || quote_ident(am.amname),
           concat_ws(', ',
               (SELECT string_agg(concat_ws(' ', o.amopstrategy, o.amopopr::regoperator, o.amoppurpose), ', '
                                  ORDER BY o.amopstrategy, o.amopopr::regoperator::text COLLATE "C")
                FROM pg_amop o WHERE o.amopfamily = f.oid),
               (SELECT string_agg(concat_ws(' ', p.amprocnum, format_type(p.amproclefttype, NULL),
                                            format_type(p.amprocrighttype, NULL), p.amproc::oid::regprocedure), ', '
                                  ORDER BY p.amprocnum, format_type(p.amproclefttype, NULL) COLLATE "C",
                                           format_type(p.amprocrighttype, NULL) COLLATE "C")
                FROM pg_amproc p WHERE p.amprocfamily = f.oid)), f.opfowner, NULL, NULL
    FROM pg_opfamily f JOIN space s ON s.oid = f.opfnamespace JOIN pg_am am ON am.oid = f.opfmethod
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_opfamily'::regclass AND e.objid = f.oid)
  UNION ALL
    -- A cast has no name and no schema: it is the migrations' when the server did not come with it.
    SELECT 'pg_cast'::regclass, c.oid, 0, 'cast',
           format_type(c.castsource, NULL) || ' as ' || format_type(c.casttarget, NULL),
           concat_ws(' ', CASE c.castmethod WHEN 'i' THEN 'WITH INOUT' WHEN 'b' THEN 'WITHOUT FUNCTION'
                                            ELSE 'WITH ' || c.castfunc::regprocedure END,
               CASE c.castcontext WHEN 'a' THEN 'AS ASSIGNMENT' WHEN 'i' THEN 'AS IMPLICIT' END), 0, NULL, NULL
    FROM pg_cast c
    -- Those between a range and its multirange come with the range.
    WHERE c.oid >= 16384
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = c.oid
                                                AND d.deptype = 'i')
      AND NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_cast'::regclass AND e.objid = c.oid)
  UNION ALL
    SELECT 'pg_conversion'::regclass, c.oid, 0, 'conversion', s.name || '.' || quote_ident(c.conname),
           concat_ws(' ', pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding), c.conproc,
               CASE WHEN c.condefault THEN 'DEFAULT' END), c.conowner, NULL, NULL
    FROM pg_conversion c JOIN space s ON s.oid = c.connamespace
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_conversion'::regclass AND e.objid = c.oid)
  UNION ALL
    SELECT 'pg_ts_config'::regclass, c.oid, 0, 'text search configuration', s.name || '.' || quote_ident(c.cfgname),
           concat_ws(', ', quote_ident(p.prsname),
               (SELECT string_agg(m.maptokentype || ' ' || m.mapdict::regdictionary, ', '
                                  ORDER BY m.maptokentype, m.mapseqno)
                FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)), c.cfgowner, NULL, NULL
    FROM pg_ts_config c JOIN space s ON s.oid = c.cfgnamespace JOIN pg_ts_parser p ON p.oid = c.cfgparser
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_ts_config'::regclass AND e.objid = c.oid)
  UNION ALL
    SELECT 'pg_ts_dict'::regclass, d.oid, 0, 'text search dictionary', s.name || '.' || quote_ident(d.dictname),
           concat_ws(', ', quote_ident(p.tmplname), d.dictinitoption), d.dictowner, NULL, NULL
    FROM pg_ts_dict d JOIN space s ON s.oid = d.dictnamespace JOIN pg_ts_template p ON p.oid = d.dicttemplate
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_ts_dict'::regclass AND e.objid = d.oid)
  UNION ALL
    SELECT 'pg_foreign_data_wrapper'::regclass, w.oid, 0, 'foreign data wrapper', quote_ident(w.fdwname),
           concat_ws(' ', nullif(w.fdwhandler, 0)::regproc, nullif(w.fdwvalidator, 0)::regproc,
               array_to_string(w.fdwoptions, ' ')), w.fdwowner, w.fdwacl, 'F'
    FROM pg_foreign_data_wrapper w
    WHERE NOT EXISTS (SELECT FROM member e
                      WHERE e.classid = 'pg_foreign_data_wrapper'::regclass AND e.objid = w.oid)
  UNION ALL
    -- Its user mappings hold passwords, and are left out.
    SELECT 'pg_foreign_server'::regclass, f.oid, 0, 'foreign server', quote_ident(f.srvname),
           concat_ws(' ', quote_ident(w.fdwname), 'TYPE ' || f.srvtype, 'VERSION ' || f.srvversion,
               array_to_string(f.srvoptions, ' ')), f.srvowner, f.srvacl, 'S'
    FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw
    WHERE NOT EXISTS (SELECT FROM member e WHERE e.classid = 'pg_foreign_server'::regclass AND e.objid = f.oid)
  UNION ALL
    SELECT 'pg_publication'::regclass, p.oid, 0, 'publication', quote_ident(p.pubname),
           concat_ws(', ',
               CASE WHEN p.puballtables THEN 'all tables' END,
               CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
               CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END,
               CASE WHEN p.pubviaroot THEN 'via root' END,
               -- Since PostgreSQL 18.
               'generated columns ' || nullif(to_jsonb(p) ->> 'pubgencols', 'n'),
               (SELECT string_agg('schema ' || quote_ident(s.nspname), ', ' ORDER BY s.nspname)
                FROM pg_publication_namespace n JOIN pg_namespace s ON s.oid = n.pnnspid WHERE n.pnpubid = p.oid),
               (SELECT string_agg(concat_ws(' ', 'table', t.identity,
                           '(' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname)
                                   FROM pg_attribute a
                                   WHERE a.attrelid = t.oid AND a.attnum = ANY (m.prattrs::int2[])) || ')',
                           'WHERE ' || pg_get_expr(m.prqual, m.prrelid)), ', ' ORDER BY t.identity COLLATE "C")
                FROM pg_publication_rel m JOIN relation t ON t.oid = m.prrelid WHERE m.prpubid = p.oid)),
           p.pubowner, NULL, NULL
    FROM pg_publication p
  UNION ALL
    -- An identity's sequence has rights of its own, and everything else from the column.
    SELECT NULL, NULL, NULL, 'sequence of', o.identity, NULL, q.relowner, q.relacl, 's'
    FROM owned o JOIN relation q ON q.oid = o.sequence
    WHERE o.deptype = 'i' AND o.identity IS NOT NULL
),
-- Rights as they hold: without an entry, those that the class has by itself. Most objects share
-- theirs with many others, so each list is read once. An owner is named as such, for a change of
-- the owner is one difference, and grantors are not, for one follows from the other.
rights AS MATERIALIZED (
    -- An aclitem can be hashed and not sorted, so that a list of them is compared as text.
    SELECT DISTINCT ON (o.class, o.owner, o.acl::text) o.class, o.owner, o.acl, o.acl::text AS list
    FROM object o WHERE o.class IS NOT NULL AND (o.class <> 'c' OR o.acl IS NOT NULL)
),
granted AS MATERIALIZED (
    SELECT r.class, r.owner, r.list, d.definition
    FROM rights r
    LEFT JOIN LATERAL (
        SELECT string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type COLLATE "C") AS privileges
        FROM aclexplode(acldefault(r.class, r.owner)) x WHERE x.grantee = r.owner) a ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(string_agg(g.name || ': ' || CASE WHEN g.privileges = a.privileges THEN 'ALL'
                                                          ELSE g.privileges END, '; '
                                   ORDER BY g.name COLLATE "C"), '') AS definition
        FROM (SELECT u.name, string_agg(u.privilege, ', ' ORDER BY u.privilege COLLATE "C") AS privileges
              FROM (SELECT CASE WHEN x.grantee = r.owner AND r.owner <> 0 THEN 'owner'
                                ELSE coalesce(role.name, 'a role that is gone') END AS name,
                           x.privilege_type || CASE WHEN bool_or(x.is_grantable) THEN ' (grantable)' ELSE '' END
                               AS privilege
                    FROM aclexplode(coalesce(r.acl, acldefault(r.class, r.owner))) x
                    LEFT JOIN role ON role.oid = x.grantee
                    WHERE x.grantee NOT IN (SELECT oid FROM client)
                    GROUP BY 1, x.privilege_type) u
              GROUP BY u.name) g) d
),
report AS (
    SELECT o.kind, o.identity, coalesce(o.definition, '') AS definition FROM object o WHERE o.kind <> 'sequence of'
  UNION ALL
    SELECT 'owner', o.kind || ' ' || o.identity, coalesce(role.name, 'a role that is gone')
    FROM object o LEFT JOIN role ON role.oid = o.owner
    WHERE o.owner <> 0 AND o.kind <> 'sequence of'
  UNION ALL
    -- Columns have none by themselves; none and an empty list are the same.
    SELECT 'privileges', o.kind || ' ' || o.identity, g.definition
    FROM object o
    JOIN granted g ON g.class = o.class AND g.owner = o.owner AND g.list IS NOT DISTINCT FROM o.acl::text
    WHERE o.class <> 'c' OR g.definition <> ''
  UNION ALL
    SELECT 'comment', o.kind || ' ' || o.identity, d.description
    FROM pg_description d
    JOIN object o ON o.objid = d.objoid AND o.classid = d.classoid AND o.objsubid = d.objsubid
    -- An extension's comment comes with it.
    WHERE o.kind <> 'extension'
  UNION ALL
    SELECT 'security label', o.kind || ' ' || o.identity,
           string_agg(l.provider || ': ' || l.label, '; ' ORDER BY l.provider COLLATE "C")
    FROM pg_seclabel l
    JOIN object o ON o.objid = l.objoid AND o.classid = l.classoid AND o.objsubid = l.objsubid
    GROUP BY 2
  UNION ALL
    -- Two logins may have one name here.
    SELECT 'default privileges', d.identity, string_agg(DISTINCT d.definition COLLATE "C", '; ' ORDER BY d.definition COLLATE "C")
    FROM (SELECT concat_ws(' ', coalesce(role.name, 'a role that is gone'), 'on',
                     CASE p.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
                                          WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END,
                     'in schema ' || s.name) AS identity,
                 coalesce((SELECT string_agg(g.name || ': ' || CASE WHEN g.privileges = a.privileges THEN 'ALL'
                                                                    ELSE g.privileges END, '; '
                                             ORDER BY g.name COLLATE "C")
                           FROM (SELECT u.name, string_agg(u.privilege, ', ' ORDER BY u.privilege COLLATE "C") AS privileges
                                 FROM (SELECT CASE WHEN x.grantee = p.defaclrole THEN 'owner'
                                                   ELSE coalesce(r.name, 'a role that is gone') END AS name,
                                              x.privilege_type || CASE WHEN bool_or(x.is_grantable)
                                                  THEN ' (grantable)' ELSE '' END AS privilege
                                       FROM aclexplode(p.defaclacl) x LEFT JOIN role r ON r.oid = x.grantee
                                       GROUP BY 1, x.privilege_type) u
                                 GROUP BY u.name) g), '') AS definition
          FROM pg_default_acl p
          LEFT JOIN role ON role.oid = p.defaclrole
          LEFT JOIN space s ON s.oid = p.defaclnamespace
          LEFT JOIN LATERAL (
              SELECT string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type COLLATE "C") AS privileges
              -- The catalog and acldefault differ in the letter for sequences.
              FROM aclexplode(acldefault(CASE p.defaclobjtype WHEN 'S' THEN 's' ELSE p.defaclobjtype END,
                                         p.defaclrole)) x
              WHERE x.grantee = p.defaclrole) a ON true
          WHERE p.defaclnamespace = 0 OR s.oid IS NOT NULL) d
    GROUP BY d.identity
  UNION ALL
    -- ALTER DATABASE ... SET, and ALTER ROLE ... IN DATABASE ... SET.
    SELECT 'setting', t.identity, string_agg(DISTINCT t.definition COLLATE "C", '; ' ORDER BY t.definition COLLATE "C")
    FROM (SELECT concat_ws(' ', split_part(c, '=', 1), 'for ' || role.name) AS identity,
                 substr(c, strpos(c, '=') + 1) AS definition
          FROM pg_db_role_setting x
          LEFT JOIN role ON role.oid = nullif(x.setrole, 0)
          CROSS JOIN LATERAL unnest(x.setconfig) c
          WHERE x.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) t
    GROUP BY t.identity
)
SELECT kind, identity, definition FROM report ORDER BY kind COLLATE "C", identity COLLATE "C", definition COLLATE "C"
