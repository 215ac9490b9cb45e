//! The tables, as `migrations/` make them in both databases; docs/schema.md explains them.
//!
//! Only BigInt and Text columns, which mean the same in SQLite and PostgreSQL.

diesel::table! {
    meta (key) {
        key -> Text,
        value -> Text,
    }
}

diesel::table! {
    users (id) {
        id -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    rooms (id) {
        id -> BigInt,
        name -> Text,
        kind -> Text,
        direct_key -> Nullable<Text>,
        head_seq -> BigInt,
        created_at -> BigInt,
        last_active_at -> BigInt,
    }
}

diesel::table! {
    members (room_id, user_id) {
        room_id -> BigInt,
        user_id -> Text,
        role -> Text,
        last_read_seq -> BigInt,
        joined_at -> BigInt,
    }
}

diesel::table! {
    contacts (user_id, contact_id) {
        user_id -> Text,
        contact_id -> Text,
        room_id -> BigInt,
        created_at -> BigInt,
    }
}

diesel::table! {
    messages (id) {
        id -> BigInt,
        room_id -> BigInt,
        seq -> BigInt,
        sender -> Nullable<Text>,
        client -> Nullable<Text>,
        conn_info -> Nullable<Text>,
        chan_info -> Nullable<Text>,
        data -> Text,
        tags -> Nullable<Text>,
        client_key -> Nullable<Text>,
        created_at -> BigInt,
    }
}

diesel::joinable!(contacts -> rooms (room_id));
diesel::joinable!(members -> rooms (room_id));

diesel::allow_tables_to_appear_in_same_query!(rooms, members, contacts, messages, users);
