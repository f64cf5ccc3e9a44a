//! The process: capabilities, kernel release.
