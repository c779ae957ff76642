//! How many tokens are left, how long they take, and how sure that is. Pure: numbers in, numbers out.
//!
//! **Tokens.** Of a book in work they are counted. Of a book that nobody has read yet, only format and file size are
//! known: its tokens are predicted by a line through the books of that format that are in the index (least squares,
//! tokens over bytes, never falling). For N unread books of mean size s the line's residual variance σ² gives the
//! variance `N σ² + N² σ² (1/n + (s − s̄)² / Sxx)`: the books' own scatter, and what the line itself is unsure of. Two
//! books of an assumed kind (`PRIOR`) count as seen before the first one, so that a new library has a wide interval
//! instead of none.
//!
//! **Rate.** Tokens of passages by the seconds in which there was work, over the last minutes; its uncertainty is the
//! scatter of the minutes over the root of their number, at least `DRIFT`.
//!
//! **Both** are taken as log-normal, so neither can be negative and the upper side is the longer one. The interval from
//! `low` to `high` is meant to hold the truth in nine of ten cases; `coverage` in the tests measures that on simulated
//! libraries. It cannot know of books that come in later, of a pause, or of another program on the GPU.

use std::collections::BTreeMap;

/// The 95 % quantile of the normal distribution: five of a hundred cases lie above, five below its negative.
const Z: f64 = 1.645;
/// No rate stays what it was: texts, other tenants and temperatures change. Relative.
const DRIFT: f64 = 0.05;
/// Books of the assumed kind.
const PRIOR_BOOKS: f64 = 2.0;
/// How far a book is from the assumption, relative to it.
const PRIOR_SPREAD: f64 = 1.0;
/// However large a file is, no text is assumed to be longer: the rest is pictures.
const PRIOR_MOST_TOKENS: f64 = 400_000.0;
/// Tokens a byte of file, where nothing is known of a format: text has one in four bytes; archives are compressed, and
/// carry pictures.
const PRIOR: [(&str, f64); 9] = [
    ("TXT", 0.25),
    ("TEXT", 0.25),
    ("MD", 0.25),
    ("MARKDOWN", 0.25),
    ("HTML", 0.2),
    ("FB2", 0.18),
    ("EPUB", 0.15),
    ("RTF", 0.15),
    ("PDF", 0.04),
];
const PRIOR_OTHERS: f64 = 0.1;
/// A spread beyond this says no more than "unknown".
const WIDEST: f64 = 2.0;

/// Sums over books: enough for a line and its scatter, whatever their number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    pub books: f64,
    pub bytes: f64,
    pub bytes_squared: f64,
    /// 0 of books that nobody has read yet.
    pub tokens: f64,
    pub tokens_squared: f64,
    pub bytes_tokens: f64,
}

impl Sums {
    pub fn add(&mut self, bytes: u64, tokens: u64) {
        let (bytes, tokens) = (bytes as f64, tokens as f64);
        self.books += 1.0;
        self.bytes += bytes;
        self.bytes_squared += bytes * bytes;
        self.tokens += tokens;
        self.tokens_squared += tokens * tokens;
        self.bytes_tokens += bytes * tokens;
    }

    pub fn plus(&mut self, other: &Sums) {
        self.books += other.books;
        self.bytes += other.bytes;
        self.bytes_squared += other.bytes_squared;
        self.tokens += other.tokens;
        self.tokens_squared += other.tokens_squared;
        self.bytes_tokens += other.bytes_tokens;
    }
}

/// By format.
pub type ByFormat = BTreeMap<String, Sums>;

/// A number that is not known exactly: its expectation and its standard deviation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Uncertain {
    pub mean: f64,
    pub deviation: f64,
}

impl Uncertain {
    /// The logarithm's standard deviation, of a log-normal one.
    fn spread(self) -> f64 {
        if self.mean <= 0.0 {
            return 0.0;
        }
        (1.0 + (self.deviation / self.mean).powi(2)).ln().sqrt().min(WIDEST)
    }
}

/// A number with the interval that holds it in about nine of ten cases.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// `value` is the expectation; `spread` the logarithm's standard deviation.
    fn around(value: f64, spread: f64) -> Self {
        let spread = spread.min(WIDEST);
        let median = value * (-spread * spread / 2.0).exp();
        Self { value, low: median * (-Z * spread).exp(), high: median * (Z * spread).exp() }
    }
}

/// Tokens of unread books of one format, by what is known of that format.
fn unread_of_format(format: &str, unread: &Sums, known: &Sums) -> Uncertain {
    if unread.books <= 0.0 {
        return Uncertain::default();
    }
    let size = unread.bytes / unread.books;
    let ratio = PRIOR.iter().find(|(name, _)| *name == format).map_or(PRIOR_OTHERS, |(_, ratio)| *ratio);
    let assumed = (size * ratio).min(PRIOR_MOST_TOKENS);
    let n = known.books;
    let (mean_size, mean_tokens) = if n > 0.0 { (known.bytes / n, known.tokens / n) } else { (size, assumed) };
    let sxx = (known.bytes_squared - n * mean_size * mean_size).max(0.0);
    let sxy = known.bytes_tokens - n * mean_size * mean_tokens;
    let syy = (known.tokens_squared - n * mean_tokens * mean_tokens).max(0.0);
    // Sums of squares lose what is under their own rounding.
    let has_slope = n >= 3.0 && sxx > 1e-9 * known.bytes_squared;
    // A larger file has no less text.
    let slope = if has_slope { (sxy / sxx).max(0.0) } else { 0.0 };
    let by_line = (mean_tokens + slope * (size - mean_size)).max(0.0);
    let residual = (syy - slope * (2.0 * sxy - slope * sxx)).max(0.0);
    let degrees = (n - if has_slope { 2.0 } else { 1.0 }).max(0.0);
    let variance = (residual + PRIOR_BOOKS * (assumed * PRIOR_SPREAD).powi(2)) / (degrees + PRIOR_BOOKS);
    let each = (n * by_line + PRIOR_BOOKS * assumed) / (n + PRIOR_BOOKS);
    let leverage = if has_slope { (size - mean_size).powi(2) / sxx } else { 0.0 };
    let books = unread.books;
    let deviation = (books * variance + books * books * variance * (1.0 / (n + PRIOR_BOOKS) + leverage)).sqrt();
    Uncertain { mean: books * each, deviation }
}

/// Tokens that are left: `counted` ones of books in work, and those of the unread ones.
pub fn tokens_left(counted: f64, unread: &ByFormat, known: &ByFormat) -> Uncertain {
    let mut left = Uncertain { mean: counted.max(0.0), deviation: 0.0 };
    let mut variance = 0.0;
    for (format, sums) in unread {
        let of_format = unread_of_format(format, sums, known.get(format).unwrap_or(&Sums::default()));
        left.mean += of_format.mean;
        variance += of_format.deviation.powi(2);
    }
    left.deviation = variance.sqrt();
    left
}

/// Tokens a second, from steps of (tokens, seconds in which there was work). None where nothing was done.
pub fn rate(steps: &[(f64, f64)]) -> Option<Uncertain> {
    let (tokens, seconds) = steps.iter().fold((0.0, 0.0), |sums, step| (sums.0 + step.0, sums.1 + step.1));
    if tokens <= 0.0 || seconds <= 0.0 {
        return None;
    }
    let mean = tokens / seconds;
    let n = steps.len() as f64;
    // Of a ratio: what each step is off from what its seconds promised.
    let scatter: f64 = steps.iter().map(|(tokens, seconds)| (tokens - mean * seconds).powi(2)).sum();
    let deviation = if n > 1.0 { (scatter * n / (n - 1.0)).sqrt() / seconds } else { mean * 0.5 };
    Some(Uncertain { mean, deviation: deviation.max(DRIFT * mean) })
}

/// Tokens left, and the seconds they take.
pub fn estimate(left: Uncertain, rate: Uncertain) -> (Interval, Interval) {
    let tokens = Interval::around(left.mean, left.spread());
    let spread = left.spread().hypot(rate.spread());
    (tokens, Interval::around(if rate.mean > 0.0 { left.mean / rate.mean } else { 0.0 }, spread))
}

#[cfg(test)]
mod tests;
