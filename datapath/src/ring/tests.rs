//! Ordinary traffic and hostile peers on heap rings and on mapped memory.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{Consumer, Descriptor, Heap, Mapped, Memory, Producer};

fn ends(size: u32, start: u32) -> (Heap<u64>, Producer<Heap<u64>>, Consumer<Heap<u64>>) {
    let ring = Heap::new(size, start).unwrap();
    (ring.clone(), Producer::new(ring.clone()), Consumer::new(ring))
}

#[test]
fn what_is_published_arrives_in_order_and_what_is_not_does_not() {
    let (_, mut producer, mut consumer) = ends(4, 0);
    assert_eq!(producer.free(1), 4);
    assert!(producer.push(10) && producer.push(11));
    assert_eq!(consumer.available(1), 0);
    assert_eq!(producer.publish(), 2);
    assert_eq!(producer.publish(), 0);
    assert_eq!(consumer.available(1), 2);
    assert_eq!(consumer.peek(1), Some(11));
    assert_eq!(consumer.peek(2), None);
    assert_eq!(
        (consumer.pop(), consumer.pop(), consumer.pop()),
        (Some(10), Some(11), None)
    );
}

#[test]
fn a_full_ring_takes_no_more_until_slots_are_released() {
    let (_, mut producer, mut consumer) = ends(2, u32::MAX - 1);
    assert!(producer.push(1) && producer.push(2));
    assert!(!producer.push(3));
    producer.publish();
    assert_eq!(consumer.available(2), 2);
    assert_eq!(consumer.pop(), Some(1));
    assert_eq!(producer.free(1), 0, "popped, not yet released");
    assert_eq!(producer.outstanding(), 2);
    assert_eq!(consumer.release(), 1);
    assert_eq!(producer.free(2), 1);
    assert!(producer.push(3));
    producer.publish();
    assert_eq!(consumer.available(2), 2);
    assert_eq!((consumer.pop(), consumer.pop()), (Some(2), Some(3)));
}

#[test]
fn a_size_that_is_no_power_of_two_is_refused() {
    assert!(Heap::<u64>::new(0, 0).is_none());
    assert!(Heap::<u64>::new(3, 0).is_none());
}

#[test]
fn an_impossible_index_counts_as_nothing_there() {
    let (ring, mut producer, mut consumer) = ends(8, 100);
    ring.force_producer(109);
    assert_eq!(consumer.available(1), 0);
    assert_eq!(consumer.pop(), None);
    ring.force_producer(99);
    assert_eq!(consumer.available(1), 0);
    assert_eq!(consumer.hostile(), 2);
    ring.force_producer(103);
    assert_eq!(consumer.available(1), 3);
    // It cannot take back what it published.
    ring.force_producer(101);
    assert_eq!(consumer.available(8), 3);
    assert_eq!(consumer.hostile(), 3);

    while producer.push(0) {}
    ring.force_consumer(101);
    assert_eq!(producer.free(1), 0);
    assert_eq!(producer.hostile(), 1, "consumed what was never published");
}

#[test]
fn mapped_memory_is_used_where_it_is() {
    // producer, consumer and flags on lines of their own, then four descriptors: the kernel's arrangement.
    #[repr(C, align(64))]
    struct Area {
        producer: (u32, [u32; 15]),
        consumer: (u32, [u32; 15]),
        flags: (u32, [u32; 15]),
        slots: [Descriptor; 4],
    }
    let area = Box::into_raw(Box::new(Area {
        producer: (0, [0; 15]),
        consumer: (0, [0; 15]),
        flags: (1, [0; 15]),
        slots: [Descriptor::default(); 4],
    }));
    // SAFETY: all pointers lead into `area`, which is freed after both rings are gone; one producer and one
    // consumer stand on it.
    let map = || unsafe {
        Mapped::new(
            &raw mut (*area).producer.0,
            &raw mut (*area).consumer.0,
            &raw mut (*area).flags.0,
            (&raw mut (*area).slots).cast::<Descriptor>(),
            4,
            (),
        )
        .unwrap()
    };
    let (mut producer, mut consumer) = (Producer::new(map()), Consumer::new(map()));
    assert_eq!(producer.flags(), 1);
    for round in 0..10 {
        let descriptor = Descriptor {
            addr: round,
            len: 60,
            options: 0,
        };
        assert_eq!(producer.free(4), 4);
        assert!(producer.push(descriptor));
        producer.publish();
        assert_eq!(consumer.available(1), 1);
        assert_eq!(consumer.pop(), Some(descriptor));
        consumer.release();
    }
    // SAFETY: made by Box::into_raw above, and neither ring is used any more.
    drop(unsafe { Box::from_raw(area) });
}

/// A memory that notices when a cursor touches a slot out of its turn.
struct Watched {
    inner: Heap<u64>,
    reads: std::sync::Arc<std::sync::Mutex<Vec<u32>>>,
}

impl Memory for Watched {
    type Item = u64;
    fn size(&self) -> u32 {
        self.inner.size()
    }
    fn producer(&self) -> &std::sync::atomic::AtomicU32 {
        self.inner.producer()
    }
    fn consumer(&self) -> &std::sync::atomic::AtomicU32 {
        self.inner.consumer()
    }
    fn flags(&self) -> u32 {
        self.inner.flags()
    }
    fn read(&self, slot: u32) -> u64 {
        self.reads.lock().unwrap().push(slot);
        self.inner.read(slot)
    }
    fn write(&mut self, slot: u32, item: u64) {
        self.inner.write(slot, item);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Both ends do what they like, within the rules: it is a queue.
    #[test]
    fn it_is_a_bounded_queue(
        start in any::<u32>(),
        shift in 0u32..5,
        steps in proptest::collection::vec((0u8..4, 0u32..20), 0..200),
    ) {
        let size = 1 << shift;
        let (_, mut producer, mut consumer) = ends(size, start);
        let (mut model, mut hidden, mut next) = (VecDeque::new(), VecDeque::new(), 0u64);
        let mut unreleased = 0u32;
        for (what, many) in steps {
            match what {
                0 => for _ in 0..many {
                    let used = model.len() as u32 + hidden.len() as u32 + unreleased;
                    producer.free(many);
                    prop_assert_eq!(producer.push(next), used < size);
                    if used < size {
                        hidden.push_back(next);
                        next += 1;
                    }
                },
                1 => {
                    prop_assert_eq!(producer.publish() as usize, hidden.len());
                    model.append(&mut hidden);
                }
                2 => for _ in 0..many {
                    consumer.available(many);
                    let popped = consumer.pop();
                    prop_assert_eq!(popped, model.pop_front());
                    unreleased += u32::from(popped.is_some());
                },
                _ => prop_assert_eq!(consumer.release(), std::mem::take(&mut unreleased)),
            }
        }
        prop_assert_eq!(producer.hostile() + consumer.hostile(), 0);
    }

    /// A peer that writes any index: never more than the ring's size is taken between releases, nothing panics.
    #[test]
    fn hostile_indices_are_counted(
        start in any::<u32>(),
        shift in 0u32..5,
        indices in proptest::collection::vec(prop_oneof![any::<u32>(), (0u32..80)], 1..100),
        relative in any::<bool>(),
    ) {
        let size = 1u32 << shift;
        let ring = Heap::<u64>::new(size, start).unwrap();
        let reads = std::sync::Arc::default();
        let mut consumer = Consumer::new(Watched { inner: ring.clone(), reads: std::sync::Arc::clone(&reads) });
        let mut released = start;
        let mut popped = 0u32;
        for index in &indices {
            let index = if relative { start.wrapping_add(*index) } else { *index };
            ring.force_producer(index);
            let before = consumer.hostile();
            let available = consumer.available(u32::MAX);
            prop_assert!(available <= size - popped);
            let possible = index.wrapping_sub(released) <= size && index.wrapping_sub(released) >= popped;
            if !possible {
                prop_assert_eq!(consumer.hostile(), before + 1);
            }
            while consumer.pop().is_some() {
                popped += 1;
            }
            prop_assert!(popped <= size);
            if index % 3 == 0 {
                prop_assert_eq!(consumer.release(), popped);
                released = released.wrapping_add(popped);
                popped = 0;
            }
        }
        // Slots were read one after the other, each once.
        for (n, slot) in reads.lock().unwrap().iter().enumerate() {
            prop_assert_eq!(*slot, start.wrapping_add(n as u32));
        }
    }

    /// As above from the producer's side: it never has more in the ring than the ring holds.
    #[test]
    fn hostile_consumer_indices_never_free_too_much(
        start in any::<u32>(),
        shift in 0u32..5,
        indices in proptest::collection::vec((any::<u32>(), 0u32..80, any::<bool>()), 1..100),
    ) {
        let size = 1u32 << shift;
        let ring = Heap::<u64>::new(size, start).unwrap();
        let mut producer = Producer::new(ring.clone());
        let (mut accepted, mut published) = (start, start);
        for (wild, near, use_near) in indices {
            let index = if use_near { start.wrapping_add(near) } else { wild };
            ring.force_consumer(index);
            let before = producer.hostile();
            let free = producer.free(u32::MAX);
            prop_assert!(free <= size);
            if producer.hostile() == before {
                // Accepted: between the last accepted index and what was published.
                prop_assert!(index.wrapping_sub(accepted) <= published.wrapping_sub(accepted));
                accepted = index;
            }
            let mut pushed = 0;
            while producer.push(7) {
                pushed += 1;
            }
            prop_assert_eq!(pushed, free);
            published = published.wrapping_add(producer.publish());
            prop_assert!(published.wrapping_sub(accepted) <= size);
        }
    }
}
