-- The machines that are installed or managed, and what is known of each.

CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION touch_updated_at() IS 'Trigger: sets updated_at on every update.';

CREATE TABLE systems (
  id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  -- Query: find_system_by_mac. The type takes every way to write an address, and compares them as one.
  mac_address macaddr     NOT NULL CONSTRAINT systems_mac_address_key UNIQUE,
  hostname    text        CONSTRAINT systems_hostname_check
              CHECK (char_length(hostname) <= 253 AND hostname ~
                '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$'),
  ip_address  inet        CONSTRAINT systems_ip_address_is_a_host
              CHECK (masklen(ip_address) = CASE family(ip_address) WHEN 4 THEN 32 ELSE 128 END),
  status      text        NOT NULL DEFAULT 'discovered' CONSTRAINT systems_status_check
              CHECK (status IN ('discovered', 'configured', 'installing', 'installed', 'failed', 'retired')),
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  -- A machine that boots for the first time has an address and no name; from then on it needs one.
  CONSTRAINT systems_named_once_configured CHECK (status IN ('discovered', 'retired') OR hostname IS NOT NULL)
);

COMMENT ON TABLE systems IS 'A machine, by the MAC address that it boots from.';
COMMENT ON COLUMN systems.ip_address IS 'The address of its last boot: a lease, so neither unique nor lasting.';

-- Query: find_system_by_hostname. Who takes over from a retired machine may take its name.
CREATE UNIQUE INDEX systems_hostname_key ON systems (hostname) WHERE status <> 'retired';
-- Query: list_systems, a status a page; the id makes the order total.
CREATE INDEX systems_status_idx ON systems (status, created_at, id);

CREATE TRIGGER systems_touch BEFORE UPDATE ON systems
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
