//! What the fuzz targets do with their bytes. The suite runs the same on bytes of a fixed generator.

mod card;
mod driven;
mod messages;

pub use card::card;
pub use driven::{device_ring, driver_ring};
pub use messages::messages;
