//! Every interleaving of one producer and one consumer: `RUSTFLAGS="--cfg loom" cargo test -p
//! bifurcate-datapath --release --lib ring`.

use super::{Consumer, Heap, Producer};

/// Three values through a ring of two slots, so that it wraps and both ends meet empty and full.
#[test]
fn values_arrive_once_and_in_order_in_every_interleaving() {
    loom::model(|| {
        let ring = Heap::<u32>::new(2, u32::MAX).unwrap();
        let mut producer = Producer::new(ring.clone());
        let mut consumer = Consumer::new(ring);
        let sender = loom::thread::spawn(move || {
            for value in 1..=3 {
                while producer.free(1) == 0 {
                    loom::thread::yield_now();
                }
                assert!(producer.push(value));
                producer.publish();
            }
            assert_eq!(producer.hostile(), 0);
        });
        for value in 1..=3 {
            while consumer.available(1) == 0 {
                loom::thread::yield_now();
            }
            assert_eq!(consumer.pop(), Some(value));
            consumer.release();
        }
        assert_eq!(consumer.hostile(), 0);
        sender.join().unwrap();
    });
}

/// A whole batch is published with one store, and read after one look.
#[test]
fn a_batch_is_seen_whole() {
    loom::model(|| {
        let ring = Heap::<u32>::new(4, 0).unwrap();
        let mut producer = Producer::new(ring.clone());
        let mut consumer = Consumer::new(ring);
        let sender = loom::thread::spawn(move || {
            assert!(producer.push(7) && producer.push(8));
            producer.publish();
        });
        let available = consumer.available(2);
        assert!(available == 0 || available == 2);
        if available == 2 {
            assert_eq!((consumer.pop(), consumer.pop()), (Some(7), Some(8)));
        }
        sender.join().unwrap();
    });
}
