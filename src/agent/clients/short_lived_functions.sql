CREATE OR REPLACE FUNCTION servicedb.make_login(for_client text, login text, verifier text, valid_until timestamptz)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' SET standard_conforming_strings = on
AS $body$
DECLARE
    known record;
    prefix text := format('servicedb.%s.', for_client);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction may not see the clients as they are now'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT * INTO known FROM servicedb.short_lived WHERE client = for_client COLLATE "C";
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the client % has no short-lived logins', for_client USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (starts_with(login COLLATE "C", prefix)
        AND substr(login, length(prefix) + 1) COLLATE "C" ~ '^[a-z0-9]{8,30}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'not the name of a login of the client %', for_client USING ERRCODE = 'invalid_name';
    END IF;
    IF (verifier COLLATE "C" ~
        '^SCRAM-SHA-256[$][0-9]{4,7}:[A-Za-z0-9+/]{4,88}={0,2}[$][A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$') IS NOT TRUE THEN
        RAISE EXCEPTION 'the password of a login must be a SCRAM verifier' USING ERRCODE = 'invalid_password';
    END IF;
    IF (valid_until > now() AND valid_until <= now() + make_interval(secs => known.longest_seconds)) IS NOT TRUE THEN
        RAISE EXCEPTION 'a login of the client % cannot be valid until %', for_client, valid_until
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- One after another, so that they are counted.
    PERFORM pg_advisory_xact_lock(hashtext('servicedb.make_login'), hashtext(for_client COLLATE "C"));
    IF (SELECT count(*) FROM pg_roles WHERE starts_with(rolname::text, prefix COLLATE "C")) >= known.most THEN
        RAISE EXCEPTION 'the client % has % logins, and may have no more', for_client, known.most
            USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT
                    CONNECTION LIMIT %s VALID UNTIL %L PASSWORD %L',
                   login, known.connection_limit, valid_until, verifier);
    -- PostgreSQL takes a verifier that it cannot decode for a password.
    IF NOT EXISTS (SELECT FROM pg_authid
                   WHERE rolname::text = login COLLATE "C" AND rolpassword = verifier COLLATE "C") THEN
        RAISE EXCEPTION 'the password of a login must be a SCRAM verifier' USING ERRCODE = 'invalid_password';
    END IF;
    EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET TRUE', known.role, login);
    EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET FALSE', known.admitted_by, login);
    -- ALTER ROLE … SET role is refused in a function of this kind.
    INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
    SELECT 0, oid, array_remove(ARRAY['role=' || known.role, 'statement_timeout=' || known.statement_timeout], NULL)
    FROM pg_roles WHERE rolname::text = login COLLATE "C";
END
$body$;

CREATE OR REPLACE FUNCTION servicedb.renew_login(for_client text, login text, valid_until timestamptz)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' SET standard_conforming_strings = on
AS $body$
DECLARE
    longest double precision;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction may not see the clients as they are now'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT longest_seconds INTO longest FROM servicedb.short_lived
    WHERE client = for_client COLLATE "C" AND starts_with(login COLLATE "C", format('servicedb.%s.', for_client));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not a login of a client with short-lived logins' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (valid_until > now() AND valid_until <= now() + make_interval(secs => longest)) IS NOT TRUE THEN
        RAISE EXCEPTION 'a login of the client % cannot be valid until %', for_client, valid_until
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('ALTER ROLE %I VALID UNTIL %L', login, valid_until);
END
$body$;

CREATE OR REPLACE FUNCTION servicedb.remove_login(login text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
    IF (login COLLATE "C" ~ '^servicedb[.][a-z0-9-]+[.][a-z0-9]+$') IS NOT TRUE THEN
        RAISE EXCEPTION 'not the name of a short-lived login' USING ERRCODE = 'invalid_name';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname::text = login COLLATE "C") THEN
        RETURN;
    END IF;
    -- A session with an open change of its own role would keep it.
    PERFORM pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename::text = login COLLATE "C";
    BEGIN
        EXECUTE format('DROP ROLE %I', login);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', login);
    END;
END
$body$;
