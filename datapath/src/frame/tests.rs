//! The pool, its frames and its caches.
