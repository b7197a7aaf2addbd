-- +goose Up
ALTER TABLE links ADD COLUMN visits bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE links DROP COLUMN visits;
