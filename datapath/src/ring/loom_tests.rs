//! Every interleaving of one producer and one consumer.
