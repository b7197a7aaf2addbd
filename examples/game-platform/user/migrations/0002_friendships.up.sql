-- Friend relationships. A pair of people has one row, whoever asked: the lower
-- id is always user_low. So two requests that cross meet in one row, and a
-- block and a friendship cannot exist side by side.

CREATE TABLE friend_relationships (
  user_low        uuid        NOT NULL REFERENCES user_profiles (user_id) ON DELETE CASCADE,
  user_high       uuid        NOT NULL REFERENCES user_profiles (user_id) ON DELETE CASCADE,
  status          text        NOT NULL CONSTRAINT friend_relationships_status_check
                  CHECK (status IN ('pending', 'accepted', 'blocked')),
  requester_id    uuid,
  addressee_id    uuid        GENERATED ALWAYS AS
                  (CASE requester_id WHEN user_low THEN user_high WHEN user_high THEN user_low END) STORED,
  requested_at    timestamptz,
  accepted_at     timestamptz,
  blocked_by_low  boolean     NOT NULL DEFAULT false,
  blocked_by_high boolean     NOT NULL DEFAULT false,
  blocked_at      timestamptz,
  -- Queries: find_relationship, list_friends (one half).
  PRIMARY KEY (user_low, user_high),
  CONSTRAINT friend_relationships_pair_is_ordered CHECK (user_low < user_high),
  CONSTRAINT friend_relationships_requester_is_in_pair CHECK (requester_id IN (user_low, user_high)),
  CONSTRAINT friend_relationships_request_check
    CHECK ((status IN ('pending', 'accepted')) = (requester_id IS NOT NULL AND requested_at IS NOT NULL)),
  CONSTRAINT friend_relationships_accepted_check CHECK ((status = 'accepted') = (accepted_at IS NOT NULL)),
  CONSTRAINT friend_relationships_blocked_check
    CHECK ((status = 'blocked') = (blocked_by_low OR blocked_by_high)
           AND (status = 'blocked') = (blocked_at IS NOT NULL))
);

COMMENT ON TABLE friend_relationships IS 'One row per pair: a request, a friendship, or a block by one or both. Declining, ending and the last unblocking delete the row.';
COMMENT ON COLUMN friend_relationships.requester_id IS 'Who asked. Null when blocked: a block leaves no trace of a friendship.';

-- Query: list_friends (the other half); and the second foreign key.
CREATE INDEX friend_relationships_high_idx ON friend_relationships (user_high);
-- Query: list_incoming_requests.
CREATE INDEX friend_relationships_incoming_idx ON friend_relationships (addressee_id, requested_at DESC)
  WHERE status = 'pending';
-- Query: list_outgoing_requests.
CREATE INDEX friend_relationships_outgoing_idx ON friend_relationships (requester_id, requested_at DESC)
  WHERE status = 'pending';

CREATE VIEW friends WITH (security_invoker = true) AS
  SELECT user_low AS user_id, user_high AS friend_id, accepted_at AS since
  FROM friend_relationships WHERE status = 'accepted'
  UNION ALL
  SELECT user_high, user_low, accepted_at
  FROM friend_relationships WHERE status = 'accepted';

COMMENT ON VIEW friends IS 'Every friendship from both sides: filter on user_id.';
