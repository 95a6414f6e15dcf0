//! SPDY/3.1, as far as Kubernetes' clients use it: streams opened by the client over one connection.
//!
//! kubectl before 1.31 speaks it for exec, attach and port-forward; later ones still do for port-forward, inside a
//! WebSocket. There is no flow control: client-go's library (spdystream) has none.

mod headers;
mod session;

pub(super) use session::{Sender, Session, Stream, open};
