//! Statistics registers, which clear when they are read, added up.

use std::sync::{Mutex, PoisonError};

use super::nic::Statistic;
use super::registers::{ReadClear, Register, Registers};

/// Registers of a card and what they have counted since it was opened.
pub struct Counting {
    rows: Vec<(Register<ReadClear>, &'static str)>,
    sums: Mutex<Vec<u64>>,
}

impl Counting {
    /// These registers, each with what it counts.
    #[must_use]
    pub fn new(rows: Vec<(Register<ReadClear>, &'static str)>) -> Counting {
        Counting {
            sums: Mutex::new(vec![0; rows.len()]),
            rows,
        }
    }

    /// Reads them all; gives the sums.
    pub fn refresh(&self, registers: &dyn Registers) -> Vec<Statistic> {
        // Numbers that are only ever added to.
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let add = |(sum, (register, meaning)): (&mut u64, &(Register<ReadClear>, &'static str))| {
            let read = register.read(registers);
            // A card that is gone reads as all ones.
            *sum += if read == u32::MAX { 0 } else { u64::from(read) };
            Statistic {
                name: register.name,
                meaning,
                value: *sum,
            }
        };
        sums.iter_mut().zip(&self.rows).map(add).collect()
    }

    /// Begins from zero.
    pub fn forget(&self) {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).fill(0);
    }
}
