DROP TABLE installation_status;
