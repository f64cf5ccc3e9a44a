//! The pool, its frames and its caches; a device that lies; batches of any making.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::{
    BATCH_MAX, Batch, Cache, Frame, HEADROOM, JUMBO_SIZE, Metadata, Owner, PageKind, Pages, Umem, UmemConfig,
    Verdict,
};

fn umem(frames: u32, jumbo_frames: u32) -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames,
        frame_size: 2048,
        jumbo_frames,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

/// Every chunk can be taken once and no more: none is lost, none is there twice.
fn assert_whole(umem: &Arc<Umem>) {
    let mut cache = Cache::new(umem);
    let mut frames: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    frames.extend(std::iter::from_fn(|| cache.take_jumbo()));
    let mut chunks: Vec<_> = frames
        .iter()
        .map(|f| umem.chunk_of(f.offset()).unwrap())
        .collect();
    for frame in frames {
        cache.give(frame);
    }
    chunks.sort_unstable();
    assert_eq!(
        chunks,
        (0..umem.frames() + umem.jumbo_frames()).collect::<Vec<_>>()
    );
}

#[test]
fn a_pool_says_what_it_is_and_refuses_what_it_cannot_be() {
    let pool = umem(16, 2);
    assert_eq!(pool.page_kind(), PageKind::Ordinary);
    assert_eq!(pool.area(), 16 * 2048);
    assert_eq!(pool.len(), 16 * 2048 + 2 * JUMBO_SIZE as usize);
    assert_eq!(pool.in_depot(), (16, 2));
    let refused = |frames, frame_size| {
        let config = UmemConfig {
            frames,
            frame_size,
            jumbo_frames: 0,
            pages: Pages::Ordinary,
        };
        Umem::map(&config).unwrap_err().code()
    };
    assert_eq!(refused(0, 2048), "EINVAL");
    assert_eq!(refused(16, 1024), "EINVAL");
    assert_eq!(refused(16, 3000), "EINVAL");
    assert_eq!(refused(1 << 20, 2048), "EINVAL");
    assert_eq!(refused(u32::MAX, 4096), "EINVAL");
}

#[test]
fn huge_pages_that_are_not_there_are_an_error_when_required_and_ordinary_ones_otherwise() {
    let config = |frames, pages| UmemConfig {
        frames,
        frame_size: 2048,
        jumbo_frames: 0,
        pages,
    };
    // Takes what huge pages this machine has set aside, by 2 GiB and then singly, so that none is left.
    let mut taken = Vec::new();
    let mut refused = |frames| loop {
        match Umem::map(&config(frames, Pages::Huge)) {
            Ok(pool) => {
                assert_eq!(pool.page_kind(), PageKind::Huge);
                taken.push(pool);
            }
            Err(error) => return error,
        }
    };
    refused((1 << 20) - 1);
    let error = refused(1024);
    assert!(error.to_string().contains("Huge"), "{error}");
    loop {
        let pool = Umem::map(&config(1024, Pages::Auto)).unwrap();
        if pool.page_kind() == PageKind::Ordinary {
            break;
        }
        // Another process has given one back meanwhile.
        taken.push(pool);
    }
}

#[test]
fn idle_caches_leave_the_pool_to_those_who_need_it() {
    let pool = umem(256, 0);
    let mut idle: Vec<Cache> = (0..16).map(|_| Cache::new(&pool)).collect();
    for cache in &mut idle {
        let frames: Vec<_> = (0..12).map(|_| cache.take().unwrap()).collect();
        frames.into_iter().for_each(|frame| cache.give(frame));
    }
    let mut busy = Cache::new(&pool);
    let frames: Vec<_> = std::iter::from_fn(|| busy.take()).collect();
    assert!(frames.len() >= 192, "{} of 256", frames.len());
    frames.into_iter().for_each(|frame| busy.give(frame));
}

#[test]
fn the_last_frame_given_is_the_next_taken() {
    let pool = umem(64, 0);
    let mut cache = Cache::new(&pool);
    let (a, b) = (cache.take().unwrap(), cache.take().unwrap());
    let (at_a, at_b) = (a.offset(), b.offset());
    cache.give(a);
    cache.give(b);
    let (b, a) = (cache.take().unwrap(), cache.take().unwrap());
    assert_eq!((a.offset(), b.offset()), (at_a, at_b));
    cache.give(a);
    cache.give(b);
}

#[test]
fn an_empty_pool_gives_nothing_and_every_frame_comes_back() {
    let pool = umem(1000, 3);
    let mut cache = Cache::new(&pool);
    let frames: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    assert_eq!(frames.len(), 1000);
    assert!(cache.take().is_none());
    let jumbos: Vec<_> = std::iter::from_fn(|| cache.take_jumbo()).collect();
    assert_eq!(jumbos.len(), 3);
    assert!(cache.take_for(3000).is_none());
    for frame in frames.into_iter().chain(jumbos) {
        cache.give(frame);
    }
    drop(cache);
    assert_eq!(pool.in_depot(), (1000, 3));
    assert_whole(&pool);
}

#[test]
fn one_cache_does_not_hoard_what_another_needs() {
    let pool = umem(64, 0);
    let (mut giver, mut taker) = (Cache::new(&pool), Cache::new(&pool));
    for _ in 0..1000 {
        // Frames wander from one thread's cache to the other's, as from receive to transmit.
        let frame = taker.take().expect("the giver passes its surplus on");
        giver.give(frame);
    }
}

#[test]
fn bytes_are_written_read_grown_and_cut() {
    let pool = umem(8, 0);
    let mut cache = Cache::new(&pool);
    let mut frame = cache.copy_in(b"payload").unwrap();
    assert_eq!(frame.offset() % 2048, HEADROOM);
    assert!(cache.append(&mut frame, b" and more"));
    assert_eq!(cache.bytes(&frame), b"payload and more");
    assert!(cache.move_start(&mut frame, -4));
    cache.bytes_mut(&mut frame)[..4].copy_from_slice(b"head");
    assert_eq!(cache.bytes(&frame), b"headpayload and more");
    assert!(cache.move_start(&mut frame, 11));
    assert_eq!(cache.bytes(&frame), b" and more");
    assert!(!cache.move_start(&mut frame, 10));
    assert!(!cache.move_start(&mut frame, -2048));
    assert!(!cache.set_len(&mut frame, 2048));
    assert_eq!(cache.room(&frame), 2048 - HEADROOM as usize - 7);
    assert!(cache.set_len(&mut frame, 2048 - HEADROOM as usize - 7));
    assert!(!cache.append(&mut frame, b"x"));
    cache.give(frame);
}

#[test]
fn a_jumbo_frame_holds_nine_thousand_bytes_in_one_piece() {
    let pool = umem(8, 1);
    let mut cache = Cache::new(&pool);
    let packet: Vec<u8> = (0..9022).map(|i| i as u8).collect();
    let jumbo = cache.copy_in(&packet).unwrap();
    assert_eq!(cache.bytes(&jumbo), packet);
    assert_eq!(pool.chunk_of(jumbo.offset()), Some(8));
    assert!(cache.copy_in(&packet).is_none());
    // No device is given one.
    let jumbo = Owner::new(&pool).unwrap().lend(jumbo).unwrap_err();
    cache.give(jumbo);
    drop(cache);
    assert_eq!(pool.in_depot(), (8, 1));
}

#[test]
fn a_frame_of_another_pool_shows_nothing_and_goes_nowhere() {
    let (ours, theirs) = (umem(8, 0), umem(8, 0));
    let (cache, mut other) = (Cache::new(&ours), Cache::new(&theirs));
    let mut frame = other.copy_in(b"secret").unwrap();
    assert!(cache.bytes(&frame).is_empty());
    assert!(cache.bytes_mut(&mut frame).is_empty());
    assert!(!cache.set_len(&mut frame, 1));
    assert!(!cache.move_start(&mut frame, 1));
    assert!(!cache.append(&mut frame, b"x"));
    let frame = Owner::new(&ours).unwrap().lend(frame).unwrap_err();
    let frame = Batch::new(&ours, 8).push(frame).unwrap_err();
    other.give(frame);
}

#[test]
fn a_retired_pool_reads_zeros_and_can_still_be_written() {
    let pool = umem(8, 0);
    let mut cache = Cache::new(&pool);
    let mut frame = cache.copy_in(b"secret").unwrap();
    pool.retire().unwrap();
    assert_eq!(cache.bytes(&frame), [0; 6]);
    cache.bytes_mut(&mut frame).fill(1);
    cache.give(frame);
}

#[test]
fn a_device_that_names_a_chunk_twice_or_one_it_never_had_gets_no_frame() {
    let pool = umem(8, 1);
    let mut cache = Cache::new(&pool);
    let (mut rx, mut tx) = (Owner::new(&pool).unwrap(), Owner::new(&pool).unwrap());
    let addr = rx.lend(cache.take().unwrap()).unwrap();
    assert_eq!(rx.lent(), 1);
    assert!(tx.reclaim(addr, 0).is_none(), "not lent by this owner");
    assert!(
        rx.reclaim(addr, 2048 - HEADROOM + 1).is_none(),
        "beyond the chunk"
    );
    assert!(rx.reclaim(addr + 2048, 0).is_none(), "never lent");
    assert!(rx.reclaim(u64::from(pool.area()), 0).is_none(), "a jumbo frame");
    assert!(rx.reclaim(addr + (1 << 32), 0).is_none(), "beyond 32 bits");
    assert!(rx.reclaim(u64::MAX, u32::MAX).is_none());
    let frame = rx
        .reclaim(addr, 2048 - HEADROOM)
        .expect("lent, and as long as there is room");
    assert!(rx.reclaim(addr, 0).is_none(), "named before");
    assert_eq!(rx.lent(), 0);
    cache.give(frame);
    // What is still lent when the device is closed comes back.
    let _ = tx.lend(cache.take().unwrap()).unwrap();
    assert_eq!(tx.recover(), 1);
    drop(cache);
    assert_whole(&pool);
}

#[test]
fn a_batch_gives_each_frame_its_verdict_and_loses_none() {
    let pool = umem(64, 0);
    let mut batch = Batch::new(&pool, 8);
    assert_eq!(batch.fill_free(20, 64), 20);
    assert_eq!(batch.room(), 0);
    batch.send(3, 0);
    batch.send(4, 1);
    batch.send(5, 0);
    batch.set(6, Verdict::Pass);
    batch.set(99, Verdict::Pass);
    let sent: Vec<u32> = {
        batch.sending_to(0);
        std::iter::from_fn(|| batch.next_send())
            .map(|f| f.offset())
            .collect()
    };
    assert_eq!(sent, [batch.offset(3), batch.offset(5)]);
    assert_eq!(batch.verdict(3), None);
    assert!(batch.bytes(3).is_empty() && !batch.set_len(3, 10));
    batch.send(3, 0);
    assert_eq!(batch.verdict(3), None, "a frame that left has no verdict");
    assert_eq!(batch.count_of(Verdict::Pass), 1);
    assert_eq!(batch.count_of(Verdict::Drop), 16);
    assert_eq!(batch.count_sends_from(1), 1);
    assert_eq!(batch.clear(), 18);
    assert!(batch.is_empty() && batch.clear() == 0);
}

#[test]
fn retain_keeps_order_verdicts_and_metadata() {
    let pool = umem(64, 0);
    let mut batch = Batch::new(&pool, BATCH_MAX);
    for i in 0..10u8 {
        let frame = batch.cache_mut().copy_in(&[i]).unwrap();
        let metadata = Metadata {
            hash: Some(u32::from(i)),
            ..Metadata::default()
        };
        batch.push_with(frame, metadata).unwrap();
    }
    batch.set(7, Verdict::Pass);
    assert_eq!(batch.retain(|bytes| bytes[0] % 3 == 1), 7);
    let left: Vec<_> = (0..batch.len())
        .map(|i| (batch.bytes(i)[0], batch.metadata(i).hash))
        .collect();
    assert_eq!(left, [(1, Some(1)), (4, Some(4)), (7, Some(7))]);
    assert_eq!(batch.verdict(2), Some(Verdict::Pass));
    drop(batch);
    assert_whole(&pool);
}

#[test]
fn a_visitor_that_panics_costs_no_frame() {
    let pool = umem(64, 0);
    let mut batch = Batch::new(&pool, 8);
    batch.fill_free(8, 64);
    let mut seen = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        batch.retain(|_| {
            seen += 1;
            assert!(seen < 6, "on purpose");
            seen % 2 == 0
        })
    }));
    assert!(panicked.is_err());
    drop(batch);
    assert_whole(&pool);
}

#[test]
fn short_frames_start_on_different_lines_of_the_cache() {
    let pool = umem(64, 0);
    let mut batch = Batch::new(&pool, 64);
    batch.fill_free(16, 64);
    let lines: HashSet<u32> = (0..16).map(|i| batch.offset(i) / 64 % 64).collect();
    assert_eq!(lines.len(), 16);
    batch.clear();
    // One that fills its frame has no room for that, and one that does not fit is not given.
    assert_eq!(batch.fill_free(16, 2048 - HEADROOM), 16);
    assert!((0..16).all(|i| batch.offset(i) % 2048 == HEADROOM));
    batch.clear();
    assert_eq!(batch.fill_free(16, 2048 - HEADROOM + 1), 0);
}

/// A step of a thread that handles frames, with a device that may lie.
#[derive(Clone, Debug)]
enum Step {
    Take,
    TakeJumbo,
    Give(usize),
    Lend(usize),
    Reclaim(u64, u32),
    ReclaimLent(usize, u32),
    Fill(usize),
    Verdicts(Vec<(usize, u8)>),
    Discard(u8),
    TakeOut(usize),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Take),
        1 => Just(Step::TakeJumbo),
        3 => (0..64usize).prop_map(Step::Give),
        3 => (0..64usize).prop_map(Step::Lend),
        2 => (0..200_000u64, 0..3000u32).prop_map(|(a, l)| Step::Reclaim(a, l)),
        1 => (any::<u64>(), any::<u32>()).prop_map(|(a, l)| Step::Reclaim(a, l)),
        3 => (0..64usize, 0..2500u32).prop_map(|(i, l)| Step::ReclaimLent(i, l)),
        2 => (0..80usize).prop_map(Step::Fill),
        2 => proptest::collection::vec((0..80usize, 0..5u8), 0..30).prop_map(Step::Verdicts),
        1 => (0..2u8).prop_map(Step::Discard),
        2 => (0..80usize).prop_map(Step::TakeOut),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is done, and whatever a device says: no chunk is ever owned twice, and none is lost.
    #[test]
    fn a_chunk_has_one_owner(steps in proptest::collection::vec(step(), 1..120)) {
        let pool = umem(48, 2);
        let mut batch = Batch::new(&pool, 64);
        let mut owner = Owner::new(&pool).unwrap();
        let mut held: Vec<Frame> = Vec::new();
        let mut lent: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Take => held.extend(batch.cache_mut().take()),
                Step::TakeJumbo => held.extend(batch.cache_mut().take_jumbo()),
                Step::Give(i) if i < held.len() => {
                    let frame = held.swap_remove(i);
                    batch.cache_mut().give(frame);
                }
                Step::Lend(i) if i < held.len() => match owner.lend(held.swap_remove(i)) {
                    Ok(addr) => lent.push(addr),
                    Err(frame) => held.push(frame),
                },
                Step::Reclaim(addr, len) => held.extend(owner.reclaim(addr, len)),
                Step::ReclaimLent(i, len) if i < lent.len() => held.extend(owner.reclaim(lent[i], len)),
                Step::Fill(n) => {
                    batch.fill_free(n, 64);
                }
                Step::Verdicts(verdicts) => {
                    for (i, verdict) in verdicts {
                        match verdict {
                            0 => batch.set(i, Verdict::Pass),
                            1 => batch.set(i, Verdict::Drop),
                            2 => batch.set(i, Verdict::Keep),
                            port => batch.send(i, port - 3),
                        }
                    }
                }
                Step::Discard(port) => {
                    batch.sending_to(port);
                    batch.discard_sends();
                }
                Step::TakeOut(i) => held.extend(batch.take(i)),
                Step::Clear => {
                    batch.clear();
                }
                _ => {}
            }
            let chunks: HashSet<_> = held.iter().map(|f| pool.chunk_of(f.offset())).collect();
            prop_assert_eq!(chunks.len(), held.len());
        }
        for frame in held.drain(..) {
            batch.cache_mut().give(frame);
        }
        owner.recover();
        drop(batch);
        assert_whole(&pool);
    }
}
