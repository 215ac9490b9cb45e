//! An application that publishes inside its own transaction: an order and the message about it are stored together, or
//! not at all.
//!
//! ```sh
//! cargo run --example order_transaction -- shop.db tea coffee tea
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use diesel::prelude::*;
use diesel::sql_types::Text;
use roomcast::{Channel, Config, Message, Node, Payload, Seq};

/// An article of which there is only one.
const SOLD_OUT_AFTER: i64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("name a database file, and articles to order")?;
    let mut config = Config::default();
    config.database.url = format!("sqlite:{file}").parse()?;
    let node = Node::open(&config)?;
    let mut connection = SqliteConnection::establish(&file)?;
    diesel::sql_query("CREATE TABLE IF NOT EXISTS orders (article TEXT NOT NULL)")
        .execute(&mut connection)?;

    let mut news = node.subscribe(&Channel::new("orders")?, None)?;
    for article in arguments {
        match order(&node, &mut connection, &article) {
            Ok(seq) => println!("{article}: order {seq}, everybody hears {}", news.recv()?.data),
            Err(error) => println!("{article}: {error}, nobody hears of it"),
        }
    }
    Ok(())
}

/// Takes an order; its number.
fn order(node: &Node, connection: &mut SqliteConnection, article: &str) -> Result<Seq, Box<dyn Error>> {
    let unsent = connection.immediate_transaction(|connection| {
        diesel::sql_query("INSERT INTO orders VALUES (?)").bind::<Text, _>(article).execute(connection)?;
        let message = Message::new(&Channel::new("orders")?, Payload::of(&[article])?);
        let unsent = node.publish_in(connection, [message])?;
        // Whatever makes the transaction fail takes the message back too.
        let ordered: i64 =
            diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM orders WHERE article = ")
                .bind::<Text, _>(article)
                .get_result(connection)?;
        if ordered > SOLD_OUT_AFTER { Err("sold out".into()) } else { Ok::<_, Box<dyn Error>>(unsent) }
    })?;
    let seq = unsent.seqs()[0];
    unsent.pass_on();
    Ok(seq)
}
