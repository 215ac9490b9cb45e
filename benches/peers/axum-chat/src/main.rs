//! The chat room that the tutorials of axum and tokio teach, with their ways of
//! passing a message on: one `broadcast` channel for each room and a task for each
//! listener (`broadcast`), or a queue for each listener that the sender fills
//! (`mpsc`). Nothing is stored. It is here to be measured beside Roomcast.
//!
//! `axum-chat ADDRESS broadcast|mpsc [THREADS]`

mod chat;

use axum::serve::ListenerExt;
use chat::{Chat, Passing};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("which address?")?;
    let passing = match arguments.next().as_deref() {
        Some("mpsc") => Passing::Mpsc,
        Some("broadcast") | None => Passing::Broadcast,
        Some(other) => return Err(format!("{other}: neither broadcast nor mpsc").into()),
    };
    // Without a number tokio takes as many threads as the process has cores, which
    // heeds the cores it is pinned to.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.next() {
        runtime.worker_threads(threads.parse()?);
    }
    runtime.enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(&address).await?;
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        Ok(axum::serve(listener, chat::router(Chat::new(passing))).await?)
    })
}
