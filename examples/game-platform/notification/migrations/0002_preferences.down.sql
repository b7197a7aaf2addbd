DROP TABLE notification_preferences;
DROP FUNCTION keep_mandatory_notifications();
DROP TABLE notification_defaults;
