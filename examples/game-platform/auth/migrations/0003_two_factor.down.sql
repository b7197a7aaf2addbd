DROP TABLE two_factor_backup_codes;
DROP TABLE two_factor_secrets;
