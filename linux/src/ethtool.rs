//! ethtool ioctls.
