//! How sure a mean over queries is: percentile intervals of the bootstrap (Efron 1979), the same in every run. Pure.

use serde::Serialize;

use crate::daemon::random::split_mix_64;

/// How often the queries are drawn anew.
const RESAMPLES: usize = 2000;
const SEED: u64 = 0x005e_ed0f_a1e8;
/// What an interval leaves out on either side.
const TAIL: f64 = 0.025;

/// A mean with the 95 % interval around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// Draws of queries with replacement. One set for all methods, so that differences are paired.
pub struct Resamples {
    queries: usize,
    /// One draw after the other, each of as many indices as there are queries.
    drawn: Vec<u32>,
}

impl Resamples {
    pub fn new(queries: usize) -> Self {
        let mut state = SEED;
        let mut draw = || {
            // The high bits times the count: no remainder's bias worth the name for counts of some thousands.
            ((u128::from(split_mix_64(&mut state)) * queries as u128) >> 64) as u32
        };
        Self { queries, drawn: (0..queries * RESAMPLES).map(|_| draw()).collect() }
    }

    /// The mean of one value a query.
    pub fn estimate(&self, values: &[f64]) -> Estimate {
        debug_assert_eq!(values.len(), self.queries);
        if values.is_empty() {
            return Estimate { mean: 0.0, low: 0.0, high: 0.0 };
        }
        let count = values.len() as f64;
        let mut means: Vec<f64> = self
            .drawn
            .chunks_exact(self.queries)
            .map(|draw| draw.iter().map(|&query| values[query as usize]).sum::<f64>() / count)
            .collect();
        means.sort_by(f64::total_cmp);
        let at = |share: f64| means[(share * (means.len() - 1) as f64).round() as usize];
        Estimate { mean: values.iter().sum::<f64>() / count, low: at(TAIL), high: at(1.0 - TAIL) }
    }

    /// The mean of `a - b`, query by query.
    pub fn difference(&self, a: &[f64], b: &[f64]) -> Estimate {
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        self.estimate(&differences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_wide_as_theory_says() {
        // Half of 400 queries succeed: the mean's standard error is 0.5 / sqrt(400) = 0.025.
        let values: Vec<f64> = (0..400).map(|n| f64::from(n % 2)).collect();
        let Estimate { mean, low, high } = Resamples::new(400).estimate(&values);
        assert_eq!(mean, 0.5);
        assert!((low - (0.5 - 1.96 * 0.025)).abs() < 0.005, "{low}");
        assert!((high - (0.5 + 1.96 * 0.025)).abs() < 0.005, "{high}");
    }

    #[test]
    fn pairing_takes_out_what_two_methods_share() {
        // The queries differ much from one another, the methods little and always in the same way.
        let hard: Vec<f64> = (0..100).map(|n| f64::from(n % 10) / 10.0).collect();
        let harder: Vec<f64> = hard.iter().map(|value| value - 0.01).collect();
        let resamples = Resamples::new(100);
        let alone = resamples.estimate(&hard);
        let difference = resamples.difference(&harder, &hard);
        assert!(alone.high - alone.low > 0.08, "{alone:?}");
        assert!((difference.low + 0.01).abs() < 1e-9 && (difference.high + 0.01).abs() < 1e-9, "{difference:?}");
    }

    #[test]
    fn runs_repeat_and_nothing_is_nothing() {
        let values = [0.2, 0.9, 0.4];
        assert_eq!(Resamples::new(3).estimate(&values), Resamples::new(3).estimate(&values));
        assert_eq!(Resamples::new(0).estimate(&[]).mean, 0.0);
        assert_eq!(Resamples::new(1).estimate(&[0.5]), Estimate { mean: 0.5, low: 0.5, high: 0.5 });
    }
}
