DROP TABLE service_configuration;
DROP TABLE service_configuration_history;
DROP FUNCTION number_setting();
DROP FUNCTION keep_setting_history();
