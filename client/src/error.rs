//! What can go wrong between a client and a broker.

use std::fmt;
use std::path::PathBuf;

/// An error of the broker's, in its words: docs/errors.md lists the codes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Refusal {
    /// A stable code, e.g. `E_LEASE_DENIED`.
    pub code: String,
    /// What was tried.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// What to do next.
    pub next: String,
}

/// Why a call of this crate failed.
#[derive(Clone, Debug)]
pub enum Error {
    /// No broker answers there, or it has ended.
    NoBroker {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// The broker refused, and says why.
    Refused(Refusal),
    /// The two do not understand each other: what was received is not what the protocol says.
    Protocol(String),
    /// The lease was taken back: its flow is with the kernel; a card that was leased whole is the broker's again when this
    /// process has closed it, with its [`Lease`](crate::Lease).
    Revoked {
        /// The lease.
        lease: String,
        /// Why, in the broker's words.
        why: String,
    },
    /// The kernel refused.
    System(bifurcate_linux::Error),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The stable code, as docs/errors.md has it.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Error::NoBroker { .. } => "E_NO_BROKER",
            Error::Refused(refusal) => &refusal.code,
            Error::Protocol(_) => "E_BROKER_PROTOCOL",
            Error::Revoked { .. } => "E_LEASE_REVOKED",
            Error::System(_) => "E_SYSTEM",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBroker { path, why } => write!(
                out,
                "E_NO_BROKER: talk to the broker at {}: {why}; start one (docs/broker.md)",
                path.display()
            ),
            Error::Refused(Refusal {
                code,
                what,
                why,
                next,
            }) => write!(out, "{code}: {what}: {why}; {next}"),
            Error::Protocol(why) => write!(
                out,
                "E_BROKER_PROTOCOL: talk to the broker: {why}; use a client and a broker of the same version"
            ),
            Error::Revoked { lease, why } => write!(
                out,
                "E_LEASE_REVOKED: use the lease {lease}: {why}; ask for a new lease"
            ),
            Error::System(error) => write!(out, "E_SYSTEM: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<bifurcate_linux::Error> for Error {
    fn from(error: bifurcate_linux::Error) -> Error {
        Error::System(error)
    }
}
