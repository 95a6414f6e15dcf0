//! A connection that is accepted and never answered.
//!
//! Mechanism: what the client sends is read, so that it is counted and acknowledged, and nothing is ever written, as by a process
//! whose workers all hang. The connection ends when the client ends it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads until the client goes. Returns the number of bytes read, and how the client went (`Ok`: FIN).
pub(crate) async fn listen_only(stream: &mut (impl AsyncRead + Unpin)) -> (u64, io::Result<()>) {
    let mut bytes = 0;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return (bytes, Ok(())),
            Ok(read) => bytes += read as u64,
            Err(error) => return (bytes, Err(error)),
        }
    }
}
