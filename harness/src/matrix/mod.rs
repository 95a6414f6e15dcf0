//! What every gateway does under every fault: one table, from the scenarios' expectations or from what a run saw, and the
//! differences between two gateways, builds or runs.
//!
//! * [`table`] is the table itself; [`expected`] fills it from scenarios, [`observed`] from a report;
//! * [`difference`] compares two of its columns; [`render`] writes both.

pub mod difference;
pub mod expected;
pub mod observed;
pub mod render;
pub mod table;

pub use difference::{Difference, Side};
pub use table::{Cell, Matrix, Row, Seen};
