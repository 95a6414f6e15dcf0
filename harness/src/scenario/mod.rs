//! What a scenario is: the model of `scenario.yaml`, read strictly and with places, so that every mistake is told at once.
//! Pure but for reading files.
//!
//! * [`yaml`] reads a tree with places, [`decode`] makes elements of it, [`problem`] is what can be wrong;
//! * [`model`], [`probe`], [`expect`] are the elements; [`time`], [`bound`] and [`text`] their small languages;
//! * [`catalogue`] reads folders, [`app`] the healthy applications in them, [`check`] finds what contradicts itself;
//! * [`schema`] describes the file to editors;
//! * [`plan`] is a scenario made ready for one gateway, [`planning`] makes it so, [`substitute`] fills in scaled times.

pub mod app;
pub mod bound;
pub mod catalogue;
pub mod check;
pub mod decode;
pub mod expect;
pub mod log;
pub mod model;
pub mod plan;
pub mod planning;
pub mod probe;
pub mod problem;
pub mod schema;
pub mod substitute;
pub mod text;
pub mod time;
pub mod versions;
pub mod yaml;

pub use app::App;
pub use bound::Bound;
pub use catalogue::{Catalogue, Entry, LoadError};
pub use decode::Spanned;
pub use expect::{Errno, Hop, Maker, ObjectName};
pub use model::{Change, Level, Need, Scenario};
pub use plan::{Plan, PlannedChange, PlannedLink, PlannedProbe, PlannedSettle};
pub use problem::{Mistake, Problem};
pub use time::{Scale, Times};
pub use versions::Versions;
