DROP TABLE systems;
DROP FUNCTION touch_updated_at();
