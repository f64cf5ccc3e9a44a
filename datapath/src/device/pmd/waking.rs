//! What wakes the queues of a card that sleep: its interrupts, where they were asked for and are enough.

use bifurcate_linux::Result;
use bifurcate_linux::card::Card;

use super::open::Config;

/// A card's interrupts, as its mechanism hands them out.
pub trait Interrupts {
    /// The mechanism's name.
    fn via(&self) -> &'static str;
    /// Switches them on, `wanted` where there are as many; gives how many there are.
    ///
    /// # Errors
    /// As [`Card::enable_interrupts`].
    fn enable(&mut self, wanted: u32) -> Result<u32>;
    /// Whether they are vectors, one a queue; else one interrupt for everything.
    fn are_vectors(&self) -> bool;
}

impl Interrupts for Card {
    fn via(&self) -> &'static str {
        Card::via(self).name()
    }

    fn enable(&mut self, wanted: u32) -> Result<u32> {
        self.enable_interrupts(wanted)
    }

    fn are_vectors(&self) -> bool {
        self.has_vectors()
    }
}

/// How a card's queues wait for frames. By default they poll, as nobody asked for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waking {
    /// They sleep until an interrupt comes.
    pub interrupts: bool,
    /// MSI-X: a vector a queue. Else one interrupt for everything.
    pub vectors: bool,
    /// Why they poll all the same, where interrupts were asked for.
    pub refused: Option<String>,
}

impl Waking {
    /// Switches a card's interrupts on, where `config` asks for them. Each queue needs one of its own: what wakes one is
    /// taken note of by that one alone.
    ///
    /// # Errors
    /// As [`Card::enable_interrupts`].
    pub fn of(card: &mut impl Interrupts, config: &Config) -> Result<Waking> {
        if !config.interrupts {
            return Ok(Waking::default());
        }
        let queues = config.queues;
        let there = card.enable(queues)?;
        if there < queues {
            let why = format!("gives the card {there} for {queues} queues, which need one each");
            return Ok(Waking::polling(card, &why));
        }
        Ok(Waking {
            interrupts: true,
            vectors: card.are_vectors(),
            refused: None,
        })
    }

    /// As [`Waking::of`], of a card that has no other interrupts than vectors.
    ///
    /// # Errors
    /// As [`Waking::of`].
    pub fn by_vectors(card: &mut impl Interrupts, config: &Config) -> Result<Waking> {
        let waking = Waking::of(card, config)?;
        if waking.interrupts && !waking.vectors {
            return Ok(Waking::polling(
                card,
                "gives the card no vector, and it raises nothing else",
            ));
        }
        Ok(waking)
    }

    fn polling(card: &impl Interrupts, why: &str) -> Waking {
        Waking {
            refused: Some(format!("interrupts=yes: {} {why}; the queues poll", card.via())),
            ..Waking::default()
        }
    }
}
