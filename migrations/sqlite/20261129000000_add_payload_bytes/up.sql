-- The payload of a message that is no JSON, whose data is the JSON null. NULL: data is the payload.
ALTER TABLE messages ADD COLUMN data_bytes BLOB;
