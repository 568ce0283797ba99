//! What the network does to the messages of a connection.

use crate::dice::Dice;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToHub,
    ToAgent,
}

/// How a connection fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Decides how long each message takes.
    pub seed: u64,
    /// The longest that a message takes, in ms. Messages of different streams and connections overtake each other.
    pub delay_ms: usize,
    /// After so many more messages to the hub nothing gets through in that direction.
    pub to_hub: Option<usize>,
    /// After so many more messages to the agent nothing gets through in that direction: what the hub has got, it
    /// has got.
    pub to_agent: Option<usize>,
}

impl Weather {
    /// Everything arrives, and soon.
    pub fn calm(seed: u64) -> Self {
        Self { seed, delay_ms: 5, to_hub: None, to_agent: None }
    }

    /// Any weather.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut weather = Self::calm(dice.number());
        weather.delay_ms = dice.weighed(&[(6, 5), (3, 500), (1, 50_000)]);
        match dice.below(10) {
            0 => weather.to_hub = Some(dice.below(8)),
            1 | 2 => weather.to_agent = Some(dice.below(6)),
            3 => (weather.to_hub, weather.to_agent) = (Some(dice.below(8)), Some(dice.below(6))),
            _ => {}
        }
        weather
    }

    /// How many more messages get through in a direction.
    pub fn left(&mut self, way: Way) -> &mut Option<usize> {
        match way {
            Way::ToHub => &mut self.to_hub,
            Way::ToAgent => &mut self.to_agent,
        }
    }
}
