DROP TABLE messages;
DROP TABLE contacts;
DROP TABLE members;
DROP TABLE rooms;
DROP TABLE users;
DROP TABLE meta;
