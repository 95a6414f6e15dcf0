//! What the backend saw: every connection and every request, with times, bytes and how it ended.

mod entry;
mod ring;

pub use entry::{ConnectionEnd, ConnectionEntry, Entry, RequestEnd, RequestEntry, TlsOutcome};
pub use ring::{Journal, Page, Since};
pub(crate) use ring::{Recorded, write_log_line};
