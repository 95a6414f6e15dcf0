//! Pod subresources that stream: log, exec, attach, port-forward.

mod channels;
mod container;
mod exec;
mod log;
mod portforward;
mod spdy;
mod upgrade;

pub(super) use log::log;
pub(super) use upgrade::upgrade;
