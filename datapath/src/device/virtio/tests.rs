//! What the driver refuses to be opened with.

use std::sync::Arc;

use super::*;
use crate::frame::{Pages, Umem, UmemConfig};

fn pool(frames: u32) -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

#[test]
fn what_cannot_be_opened_is_refused_by_name() {
    let refused = |frames, change: fn(&mut Config)| {
        let mut config = Config::new("/nonexistent/bf-virtio.sock");
        change(&mut config);
        open(&config, &pool(frames)).err().unwrap()
    };
    assert_eq!(refused(4096, |_| ()).code(), "ENOENT");
    for (frames, change, why) in [
        (4096, (|c| c.queues = 0) as fn(&mut Config), "0 queues"),
        (4096, |c| c.queues = 128, "128 queues"),
        (4096, |c| c.ring_size = 100, "100 slots"),
        (4096, |c| c.ring_size = 0, "0 slots"),
        (511, |_| (), "a pool of 511 frames"),
    ] {
        let error = refused(frames, change);
        assert_eq!(error.code(), "EINVAL");
        assert!(error.to_string().contains(why), "{error}");
    }
}
