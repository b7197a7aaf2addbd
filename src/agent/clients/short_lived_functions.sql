CREATE OR REPLACE FUNCTION servicedb.make_login(for_client text, login text, verifier text, valid_until timestamptz)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC'
AS $body$
DECLARE
    known record;
    prefix text := format('servicedb.%s.', for_client);
BEGIN
    SELECT * INTO known FROM servicedb.short_lived WHERE client = for_client;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the client % has no short-lived logins', for_client USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (starts_with(login, prefix) AND substr(login, length(prefix) + 1) ~ '^[a-z0-9]{8,30}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'not the name of a login of the client %', for_client USING ERRCODE = 'invalid_name';
    END IF;
    IF (verifier ~ '^SCRAM-SHA-256\$[0-9]{4,7}:[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]+=*:[A-Za-z0-9+/]+=*$') IS NOT TRUE THEN
        RAISE EXCEPTION 'the password of a login must be a SCRAM verifier' USING ERRCODE = 'invalid_password';
    END IF;
    IF (valid_until > now() AND valid_until <= now() + make_interval(secs => known.longest_seconds)) IS NOT TRUE THEN
        RAISE EXCEPTION 'a login of the client % cannot be valid until %', for_client, valid_until
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- One after another, so that they are counted.
    PERFORM pg_advisory_xact_lock(hashtext('servicedb.make_login'), hashtext(for_client));
    IF (SELECT count(*) FROM pg_roles WHERE starts_with(rolname::text, prefix)) >= known.most THEN
        RAISE EXCEPTION 'the client % has % logins, and may have no more', for_client, known.most
            USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT
                    CONNECTION LIMIT %s VALID UNTIL %L PASSWORD %L',
                   login, known.connection_limit, valid_until, verifier);
    EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET TRUE', known.role, login);
    EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET FALSE', known.admitted_by, login);
    -- ALTER ROLE … SET role is refused in a function of this kind.
    INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
    SELECT 0, oid, array_remove(ARRAY['role=' || known.role, 'statement_timeout=' || known.statement_timeout], NULL)
    FROM pg_roles WHERE rolname = login;
END
$body$;

CREATE OR REPLACE FUNCTION servicedb.renew_login(for_client text, login text, valid_until timestamptz)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC'
AS $body$
DECLARE
    longest double precision;
BEGIN
    SELECT longest_seconds INTO longest FROM servicedb.short_lived
    WHERE client = for_client AND starts_with(login, format('servicedb.%s.', for_client));
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
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF (login ~ '^servicedb\.[a-z0-9-]+\.[a-z0-9]+$') IS NOT TRUE THEN
        RAISE EXCEPTION 'not the name of a short-lived login' USING ERRCODE = 'invalid_name';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
        RETURN;
    END IF;
    -- A session with an open change of its own role would keep it.
    PERFORM pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = login;
    BEGIN
        EXECUTE format('DROP ROLE %I', login);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', login);
    END;
END
$body$;
