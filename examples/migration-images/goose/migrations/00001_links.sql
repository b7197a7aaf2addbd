-- +goose Up
CREATE TABLE links (
    slug   text PRIMARY KEY,
    target text NOT NULL
);

-- +goose Down
DROP TABLE links;
