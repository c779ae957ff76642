//! Which part of the workspace holds which activations. Pure: it hands out numbers and touches no memory.
//!
//! The workspace is a row of units; a unit holds `[tokens, hidden]` numbers. Activations of `n * hidden` columns take
//! `n` units side by side. What is handed out is given back when the activations are dropped, so the encoder's order of
//! operations decides how many units it takes; [`units`] says how many.

use crate::embed::Shape;

/// Units in use.
#[derive(Debug)]
pub struct Slots {
    used: Vec<bool>,
}

impl Slots {
    pub fn new(units: usize) -> Self {
        Self { used: vec![false; units] }
    }

    /// The first of `width` free units side by side.
    pub fn take(&mut self, width: usize) -> Option<usize> {
        let first = self.used.windows(width).position(|units| units.iter().all(|used| !used))?;
        self.used[first..first + width].fill(true);
        Some(first)
    }

    pub fn give_back(&mut self, first: usize, width: usize) {
        self.used[first..first + width].fill(false);
    }
}

/// Units that the encoder needs: the layer's input with its query, key, value and context, of which three lie side by
/// side and so need one more; or the attended tokens with the inner layer and its output.
pub fn units(shape: &Shape) -> usize {
    (1 + 3 + 1 + 1).max(2 + width(shape.intermediate, shape.hidden))
}

/// Units that `columns` numbers a token take.
pub fn width(columns: usize, hidden: usize) -> usize {
    columns.div_ceil(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The encoder's order of operations, three layers of it.
    fn run(shape: &Shape) -> Option<()> {
        let mut slots = Slots::new(units(shape));
        let inner = width(shape.intermediate, shape.hidden);
        let mut x = slots.take(1)?;
        for _ in 0..3 {
            let qkv = slots.take(3)?;
            let context = slots.take(1)?;
            slots.give_back(qkv, 3);
            let attended = slots.take(1)?;
            slots.give_back(context, 1);
            slots.give_back(x, 1);
            let inner_rows = slots.take(inner)?;
            x = slots.take(1)?;
            slots.give_back(inner_rows, inner);
            slots.give_back(attended, 1);
        }
        // Pooled vectors are f32, of as many texts as there are tokens at most.
        slots.take(2)?;
        Some(())
    }

    #[test]
    fn the_encoder_fits_into_its_units() {
        for intermediate in (1..12).map(|width| width * 1000) {
            let shape = Shape { layers: 3, hidden: 1024, heads: 16, intermediate };
            assert_eq!(run(&shape), Some(()), "{intermediate}");
        }
        let shape = Shape { layers: 24, hidden: 1024, heads: 16, intermediate: 4096 };
        assert_eq!(units(&shape), 6);
    }

    #[test]
    fn what_is_in_use_is_not_handed_out() {
        let mut slots = Slots::new(4);
        assert_eq!((slots.take(2), slots.take(1), slots.take(2)), (Some(0), Some(2), None));
        slots.give_back(0, 2);
        assert_eq!((slots.take(1), slots.take(2), slots.take(1)), (Some(0), None, Some(1)));
    }
}
