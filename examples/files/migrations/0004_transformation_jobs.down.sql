DROP TABLE transformation_jobs;
DROP FUNCTION keep_finished_jobs();
