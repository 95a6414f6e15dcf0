//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::failure::Failure;
use crate::terminal::Screen;

/// Cancelled by the first signal. `doing`: what the first signal starts, for people.
pub fn token(screen: &Arc<Screen>, doing: &'static str) -> Result<CancellationToken, Failure> {
    let unavailable = |error| Failure::environment(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let token = CancellationToken::new();
    let (cancel, screen) = (token.clone(), Arc::clone(screen));
    tokio::spawn(async move {
        let mut signals = 0u32;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                end_at_once();
            }
            screen.note(&format!("interrupted: {doing}; once more to end at once"));
            cancel.cancel();
        }
    });
    Ok(token)
}

/// Attached clusters end with this process in any case: the kernel closes their lifeline.
#[allow(clippy::exit, reason = "the second Ctrl-C is a wish to end without any further work")]
fn end_at_once() {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}
