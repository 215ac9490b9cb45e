//! Statements of our own for diesel to prepare once per connection and keep.

/// Gives a statement its identity for diesel's cache of prepared statements, and lets it run.
/// (`sql_query` and diesel's own `UPDATE` are parsed anew every time.)
macro_rules! prepared {
    ($statement:ident for $connection:ty) => {
        impl diesel::query_builder::QueryId for $statement<'_> {
            type QueryId = $statement<'static>;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::RunQueryDsl<$connection> for $statement<'_> {}
    };
    ($statement:ident for $connection:ty => $row:ty) => {
        prepared!($statement for $connection);

        impl diesel::query_builder::Query for $statement<'_> {
            type SqlType = $row;
        }
    };
}
pub(super) use prepared;
