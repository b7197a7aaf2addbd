DROP TABLE read_receipts;
DROP FUNCTION keep_receipts_moving_forward();
