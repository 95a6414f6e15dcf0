//! The only writer to the terminal: data goes to standard output, all else to standard error. Colour is never the only
//! carrier of a meaning, and is left out where it is not wanted (NO_COLOR, no terminal; `anstream` decides).
//!
//! * [`screen`] writes single messages, [`live`] shows a session while it runs, [`table`] what came of it.

pub mod live;
pub mod screen;
pub mod table;

pub use live::LiveView;
pub use screen::Screen;
