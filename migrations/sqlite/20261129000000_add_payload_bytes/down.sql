ALTER TABLE messages DROP COLUMN data_bytes;
