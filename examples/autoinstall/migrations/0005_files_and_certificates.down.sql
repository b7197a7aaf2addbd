DROP TABLE certificates;
DROP TABLE file_metadata;
