//! The ethtool ioctls (include/uapi/linux/ethtool.h): how a card's queues, table, features and rules are set.
//!
//! Each function acts on an interface of the calling thread's namespace. Where a driver has no such
//! operation (EOPNOTSUPP), what it would tell is `None`.

mod device;
mod features;
mod hash_fields;
mod ntuple;
mod request;
mod rss;
mod statistics;

pub use device::{Channels, ChannelsFacts, DriverInfo, Rings, channels, driver, rings, set_channels, speed};
pub use features::{Feature, features, set_feature};
pub use hash_fields::{FlowType, hash_fields};
pub use ntuple::{FLOW_SPEC, FlowSpec, delete_rule, insert_rule, rule_capacity, rules};
pub use rss::{Rss, reset_rss, rss, set_rss};
pub use statistics::statistics;
