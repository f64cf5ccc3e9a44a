//! How a port's card is: what its queues found, for whoever asks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bifurcate_linux::verbs::Event;

use crate::device::State;

/// What the queues of a port found of their card. Any thread may read it.
#[derive(Debug, Default)]
pub struct Status {
    state: AtomicU8,
    restarts: AtomicU64,
    why: Mutex<Option<String>>,
    /// The port of the card that this is about, from 1.
    port: u32,
    /// The card said that it is no more.
    taken_away: AtomicBool,
}

/// A [`Status`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the card is there.
    pub state: State,
    /// Times that a queue pair was set up again after an error.
    pub restarts: u64,
    /// Why nothing will move any more, when the state is `Gone`; else the last error that a queue pair was set up
    /// again for.
    pub why: Option<String>,
}

impl Status {
    /// Of a port that carries.
    pub(super) fn of(port: u8) -> Status {
        Status {
            port: port.into(),
            ..Status::default()
        }
    }

    /// Whether the card said that it failed or was taken away: it does nothing any more.
    pub(super) fn is_taken_away(&self) -> bool {
        self.taken_away.load(Ordering::Relaxed)
    }

    /// It now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            state: self.state(),
            restarts: self.restarts.load(Ordering::Relaxed),
            why: self.why.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            value if value == State::Gone as u8 => State::Gone,
            value if value == State::Down as u8 => State::Down,
            _ => State::Up,
        }
    }

    pub(super) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes why a queue pair has to be set up again. What ended everything stays.
    pub(super) fn trouble(&self, why: impl Into<String>) {
        if self.state() != State::Gone {
            *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
        }
    }

    /// Nothing will move any more. The first reason stays.
    pub(super) fn gone(&self, why: impl Into<String>) {
        if self.state() != State::Gone {
            *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
            self.set(State::Gone);
        }
    }

    pub(super) fn set(&self, state: State) {
        if self.state() != State::Gone {
            self.state.store(state as u8, Ordering::Relaxed);
        }
    }

    /// Something happened to the card.
    pub(super) fn heard(&self, event: Event) {
        match event {
            Event::DeviceGone => {
                self.taken_away.store(true, Ordering::Relaxed);
                self.gone("the device failed or was taken away (IBV_EVENT_DEVICE_FATAL)");
            }
            Event::CompletionQueueOverrun => self.gone("a completion queue overran (IBV_EVENT_CQ_ERR)"),
            Event::PortUp(port) if port == self.port => self.set(State::Up),
            Event::PortDown(port) if port == self.port => self.set(State::Down),
            // Another port's. The completions of the queue pair say so too, and of which.
            Event::PortUp(_) | Event::PortDown(_) | Event::QueuePairFailed | Event::Other(_) => {}
        }
    }
}
