-- Functions that only write into the server's log who runs them, in every place where PostgreSQL
-- would run them for somebody who merely reads or changes a relation of the ledger. Run as the
-- owner of the database, with the ledger there.
CREATE SCHEMA traps;
GRANT USAGE ON SCHEMA traps TO PUBLIC;

CREATE FUNCTION traps.log(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE LOG 'trap "%" ran as % in a session of %, superuser: %', place, current_user, session_user,
        (SELECT pg_catalog.bool_or(rolsuper) FROM pg_catalog.pg_roles
         WHERE rolname OPERATOR(pg_catalog.=) ANY (ARRAY[current_user, session_user]));
    RETURN true;
END $$;

CREATE FUNCTION traps.on_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM traps.log(tg_argv[0]);
    RETURN coalesce(new, old);
END $$;

CREATE DOMAIN traps.word AS text CHECK (traps.log('domain'));

-- What the planner evaluates for whoever names the table.
CREATE INDEX trap_expression ON servicedb.migrations ((traps.log('index expression')));
CREATE INDEX trap_predicate ON servicedb.migrations (name) WHERE traps.log('index predicate');
CREATE STATISTICS traps.trap_statistics ON (traps.log('statistics')), name FROM servicedb.migrations;
CREATE INDEX trap_expression_of_revision ON servicedb.revision ((traps.log('index expression of revision')));
CREATE INDEX trap_predicate_of_revision ON servicedb.revision (revision) WHERE traps.log('index predicate of revision');

-- What reading evaluates.
ALTER TABLE servicedb.migrations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY trap_policy ON servicedb.migrations USING (traps.log('policy')) WITH CHECK (traps.log('policy'));
ALTER TABLE servicedb.revision ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY trap_policy ON servicedb.revision USING (traps.log('policy of revision')) WITH CHECK (true);
CREATE TABLE traps.child () INHERITS (servicedb.migrations);
CREATE INDEX trap_of_child ON traps.child ((traps.log('index expression of a child')));
CREATE VIEW servicedb.seen AS SELECT traps.log('view') AS seen FROM servicedb.migrations;
CREATE MATERIALIZED VIEW servicedb.kept AS SELECT version FROM servicedb.migrations WHERE traps.log('materialized view');

-- What changes evaluate.
ALTER TABLE servicedb.migrations
    ADD COLUMN trap_default boolean DEFAULT traps.log('default'),
    ADD COLUMN trap_generated boolean GENERATED ALWAYS AS (traps.log('generated column')) STORED,
    ADD CONSTRAINT trap_check CHECK (traps.log('check')),
    ALTER COLUMN error TYPE traps.word;
CREATE SEQUENCE servicedb.trap_sequence OWNED BY servicedb.migrations.trap_default;
CREATE TRIGGER trap_row BEFORE INSERT OR UPDATE OR DELETE ON servicedb.migrations
    FOR EACH ROW EXECUTE FUNCTION traps.on_change('row trigger');
CREATE TRIGGER trap_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON servicedb.migrations
    FOR EACH STATEMENT EXECUTE FUNCTION traps.on_change('statement trigger');
CREATE TRIGGER trap_of_revision BEFORE INSERT OR UPDATE ON servicedb.revision
    FOR EACH ROW EXECUTE FUNCTION traps.on_change('row trigger of revision');
CREATE RULE trap_rule AS ON DELETE TO servicedb.revision DO ALSO SELECT traps.log('rule');

-- What a name without a schema would find.
CREATE FUNCTION traps.to_regclass(text) RETURNS regclass LANGUAGE sql
    AS $$ SELECT pg_catalog.to_regclass($1) WHERE traps.log('function to_regclass') $$;
CREATE FUNCTION traps.pg_backend_pid() RETURNS int LANGUAGE sql
    AS $$ SELECT pg_catalog.pg_backend_pid() WHERE traps.log('function pg_backend_pid') $$;
CREATE FUNCTION traps.pg_is_in_recovery() RETURNS boolean LANGUAGE sql
    AS $$ SELECT pg_catalog.pg_is_in_recovery() WHERE traps.log('function pg_is_in_recovery') $$;
CREATE FUNCTION traps.is_equal(text, text) RETURNS boolean LANGUAGE sql
    AS $$ SELECT $1 OPERATOR(pg_catalog.=) $2 AND traps.log('operator') $$;
CREATE OPERATOR traps.= (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.is_equal);
CREATE FUNCTION traps.is_equal(name, text) RETURNS boolean LANGUAGE sql
    AS $$ SELECT $1 OPERATOR(pg_catalog.=) $2 AND traps.log('operator') $$;
CREATE OPERATOR traps.= (LEFTARG = name, RIGHTARG = text, FUNCTION = traps.is_equal);
CREATE VIEW traps.pg_namespace AS SELECT n.* FROM pg_catalog.pg_namespace n WHERE traps.log('catalog pg_namespace');
CREATE VIEW traps.pg_extension AS SELECT e.* FROM pg_catalog.pg_extension e WHERE traps.log('catalog pg_extension');
CREATE VIEW traps.pg_class AS SELECT c.* FROM pg_catalog.pg_class c WHERE traps.log('catalog pg_class');
CREATE TYPE traps.pair AS (word text);
CREATE FUNCTION traps.word_of(traps.pair) RETURNS text LANGUAGE sql
    AS $$ SELECT $1.word WHERE traps.log('cast') $$;
CREATE CAST (traps.pair AS text) WITH FUNCTION traps.word_of(traps.pair) AS IMPLICIT;

GRANT SELECT ON ALL TABLES IN SCHEMA traps TO PUBLIC;
DO $$ BEGIN
    EXECUTE pg_catalog.format('ALTER DATABASE %I SET search_path = traps, pg_catalog, public', current_database());
END $$;
