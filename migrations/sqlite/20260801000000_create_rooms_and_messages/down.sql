DROP TABLE messages;
DROP TABLE members;
DROP TABLE contacts;
DROP TABLE rooms;
DROP TABLE users;
DROP TABLE meta;
