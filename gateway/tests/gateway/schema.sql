CREATE TYPE rating AS ENUM ('G', 'PG', 'R');
CREATE TABLE directors (id int PRIMARY KEY, name text NOT NULL, born date);
CREATE TABLE films (
    id int PRIMARY KEY, title varchar(40) NOT NULL, year int, rating rating NOT NULL DEFAULT 'PG',
    director_id int REFERENCES directors, producer_id int REFERENCES directors, tags text[], details jsonb, price numeric(8, 2),
    released timestamptz, length int4range, plain bool, search tsvector GENERATED ALWAYS AS (to_tsvector('english', title)) STORED
);
COMMENT ON TABLE films IS 'Films';
CREATE TABLE actors (id int PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE roles (
    film_id int REFERENCES films ON DELETE CASCADE, actor_id int REFERENCES actors ON DELETE CASCADE, character text, PRIMARY KEY (film_id, actor_id)
);
CREATE TABLE technical_specs (film_id int PRIMARY KEY REFERENCES films ON DELETE CASCADE, camera text);
CREATE TABLE notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL, length smallint, kind rating,
    created timestamptz NOT NULL DEFAULT now(), uid uuid, CHECK (body <> 'forbidden')
);
CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL DEFAULT 7, remark text DEFAULT 'none');
CREATE TABLE "odd name" ("a ""column""" int PRIMARY KEY, "sel,ect" text);
CREATE TABLE secrets (id int PRIMARY KEY, owner text);
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secrets USING (owner = current_setting('request.jwt.claims')::json ->> 'sub');
CREATE VIEW recent AS SELECT id, title, year FROM films WHERE year > 1980;
CREATE FUNCTION add(a int, b int DEFAULT 10) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
CREATE FUNCTION films_of(director int) RETURNS SETOF films LANGUAGE sql STABLE AS 'SELECT * FROM films WHERE director_id = director';
CREATE FUNCTION pair(OUT x int, OUT y text) LANGUAGE sql AS $$SELECT 1, 'one'$$;
CREATE FUNCTION numbers(n int) RETURNS SETOF int LANGUAGE sql AS 'SELECT generate_series(1, n)';
CREATE FUNCTION touch(name text) RETURNS void LANGUAGE sql AS 'INSERT INTO counters (name) VALUES (name)';
CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no luck' USING ERRCODE = 'P0001', DETAIL = 'some', HINT = 'try'; END$$;
CREATE FUNCTION escape() RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('role', 'none', false); RETURN current_user; END$$;
CREATE FUNCTION who() RETURNS text LANGUAGE sql STABLE AS 'SELECT current_user::text';
INSERT INTO directors VALUES (1, 'Ozu', '1903-12-12'), (2, 'Varda', '1928-05-30'), (3, 'Kurosawa', NULL);
INSERT INTO films (id, title, year, rating, director_id, producer_id, tags, details, price, released, length, plain) VALUES
 (1, 'Tokyo Story', 1953, 'G', 1, NULL, '{family,japan}', '{"score": 8.1, "cast": [{"name": "Ryu"}]}', 9.50, '1953-11-03T00:00:00Z', '[100,136)', true),
 (2, 'Cleo from 5 to 7', 1962, 'PG', 2, 2, '{paris}', '{"score": 7.9}', 12.00, '1962-04-11T10:00:00Z', '[85,90)', false),
 (3, 'Ran', 1985, 'R', 3, 3, '{japan,war}', '{"score": 8.2}', NULL, NULL, '[150,162)', NULL),
 (4, 'Vagabond', 1985, 'R', 2, NULL, '{}', NULL, 7.25, '1985-12-04T00:00:00Z', NULL, true),
 (5, 'Orphan, "quoted"', NULL, 'PG', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO actors VALUES (1, 'Ryu'), (2, 'Hara'), (3, 'Marchand'), (4, 'Bonnaire');
INSERT INTO roles VALUES (1, 1, 'Shukichi'), (1, 2, 'Noriko'), (2, 3, 'Cleo'), (4, 4, 'Mona');
INSERT INTO technical_specs VALUES (1, 'Mitchell'), (3, 'Arriflex');
INSERT INTO counters VALUES ('one', 1, NULL), ('two', 2, 'x');
INSERT INTO secrets VALUES (1, 'shop/app'), (2, 'shop/reader');
