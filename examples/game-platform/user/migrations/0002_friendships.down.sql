DROP VIEW friends;
DROP TABLE friend_relationships;
