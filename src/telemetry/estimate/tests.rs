//! The reckoning of the remaining time: its properties, and how often its interval holds the truth in simulated
//! libraries.

use proptest::prelude::*;

use super::*;

fn one(format: &str, sums: Sums) -> ByFormat {
    BTreeMap::from([(format.to_owned(), sums)])
}

fn sums(books: &[(u64, u64)]) -> Sums {
    let mut sums = Sums::default();
    books.iter().for_each(|(bytes, tokens)| sums.add(*bytes, *tokens));
    sums
}

#[test]
fn nothing_left_takes_no_time_and_counted_tokens_are_sure() {
    let sure = Uncertain { mean: 100.0, deviation: 0.0 };
    let nothing = tokens_left(0.0, &ByFormat::new(), &ByFormat::new());
    assert_eq!(estimate(nothing, sure).1, Interval::default());
    let (tokens, seconds) = estimate(tokens_left(5000.0, &ByFormat::new(), &ByFormat::new()), sure);
    assert_eq!((tokens.low, tokens.value, tokens.high), (5000.0, 5000.0, 5000.0));
    assert_eq!((seconds.low, seconds.value, seconds.high), (50.0, 50.0, 50.0));
    assert_eq!(rate(&[]), None);
    assert_eq!(rate(&[(0.0, 60.0)]), None);
}

#[test]
fn a_format_that_is_well_known_is_predicted_by_its_line() {
    // 1,000 tokens, and one in four bytes.
    let known: Vec<(u64, u64)> = (1..200).map(|n| (n * 4000, 1000 + n * 1000)).collect();
    let unread = sums(&[(400_000, 0), (80_000, 0)]);
    let left = tokens_left(0.0, &one("TXT", unread), &one("TXT", sums(&known)));
    assert!((left.mean - 122_000.0).abs() < 3000.0, "{left:?}");
    let without = tokens_left(0.0, &one("TXT", unread), &ByFormat::new());
    assert!(without.deviation > left.deviation * 3.0, "{without:?} knows less than {left:?}");
    assert!((without.mean - 120_000.0).abs() < 1.0, "one in four bytes: {without:?}");
}

#[test]
fn a_rate_over_more_minutes_is_surer() {
    let minutes = |n: usize| (0..n).map(|at| (if at % 2 == 0 { 9000.0 } else { 3000.0 }, 60.0)).collect::<Vec<_>>();
    let (short, long) = (rate(&minutes(4)).unwrap(), rate(&minutes(100)).unwrap());
    assert_eq!((short.mean, long.mean), (100.0, 100.0));
    assert!(short.deviation > 2.0 * long.deviation, "{short:?} {long:?}");
    assert!(long.deviation >= DRIFT * long.mean);
    assert_eq!(rate(&[(600.0, 6.0)]).unwrap().deviation, 50.0, "one step says little");
}

proptest! {
    #[test]
    fn an_interval_holds_its_value_and_more_work_takes_longer(
        known in prop::collection::vec((1_000_u64..50_000_000, 0_u64..3_000_000), 0..40),
        unread in prop::collection::vec(0_u64..500_000_000, 0..40),
        counted in 0.0..1e9,
        steps in prop::collection::vec((0.0..1e6, 1.0..60.0), 1..30),
        more in 1_u64..100_000_000,
    ) {
        let mut queue = Sums::default();
        unread.iter().for_each(|bytes| queue.add(*bytes, 0));
        let known = one("EPUB", sums(&known));
        let left = tokens_left(counted, &one("EPUB", queue), &known);
        let Some(rate) = rate(&steps) else { return Ok(()) };
        let (tokens, seconds) = estimate(left, rate);
        for interval in [tokens, seconds] {
            prop_assert!(interval.low.is_finite() && interval.high.is_finite() && interval.low >= 0.0);
            prop_assert!(interval.low <= interval.value && interval.value <= interval.high * (1.0 + 1e-9), "{interval:?}");
        }
        let counted_more = estimate(tokens_left(counted + more as f64, &one("EPUB", queue), &known), rate);
        prop_assert!(counted_more.1.value > seconds.value && counted_more.0.low >= tokens.low * 0.999);
        let faster = Uncertain { mean: rate.mean * 2.0, deviation: rate.deviation * 2.0 };
        let halved = estimate(left, faster).1;
        prop_assert!((halved.value * 2.0 - seconds.value).abs() <= seconds.value * 1e-9);
        prop_assert!((halved.high * 2.0 - seconds.high).abs() <= seconds.high * 1e-9);
    }

    #[test]
    fn the_order_and_the_grouping_of_books_do_not_matter(
        books in prop::collection::vec((1_000_u64..5_000_000, 10_u64..300_000), 2..40), cut in 0_usize..40,
    ) {
        let cut = cut.min(books.len());
        let mut together = sums(&books[..cut]);
        together.plus(&sums(&books[cut..]));
        let mut backwards = books.clone();
        backwards.reverse();
        let unread = one("PDF", sums(&[(1_000_000, 0); 5]));
        let (a, b) = (
            tokens_left(0.0, &unread, &one("PDF", together)),
            tokens_left(0.0, &unread, &one("PDF", sums(&backwards))),
        );
        prop_assert!((a.mean - b.mean).abs() <= 1e-6 * a.mean && (a.deviation - b.deviation).abs() <= 1e-3 * a.deviation);
    }
}

/// xorshift64*, and the normal distribution by Box and Muller: the same numbers at every run.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        median * (self.normal() * spread).exp()
    }
}

/// A book as libraries have them: a text of some 100,000 tokens, give or take a factor of three; a file of that text,
/// compressed where the format does that, and pictures of any size.
fn book(random: &mut Random) -> (&'static str, u64, u64) {
    let tokens = random.log_normal(110_000.0, 0.8);
    let (format, per_token, pictures) = match random.unit() {
        share if share < 0.7 => ("EPUB", 1.7, random.log_normal(250_000.0, 1.3)),
        share if share < 0.9 => ("PDF", 6.0, random.log_normal(1_500_000.0, 1.5)),
        _ => ("TXT", 4.2, 0.0),
    };
    let bytes = tokens * random.log_normal(per_token, 0.12) + pictures;
    (format, bytes as u64, tokens as u64)
}

/// How often truth lies inside: (tokens, seconds), and the mean width of the seconds' interval relative to the truth.
fn coverage(seed: u64, books: usize, done: usize, libraries: usize) -> (f64, f64, f64) {
    let mut random = Random(seed);
    let (mut tokens_held, mut seconds_held, mut width) = (0, 0, 0.0);
    for _ in 0..libraries {
        let library: Vec<_> = (0..books).map(|_| book(&mut random)).collect();
        // What the machine can do, and each book's own pace by its sentences and the other tenants.
        let machine = random.log_normal(5000.0, 1.0);
        let (mut known, mut unread) = (ByFormat::new(), ByFormat::new());
        let (mut steps, mut truth, mut truth_seconds) = (Vec::new(), 0.0, 0.0);
        let (mut minute, mut filled) = (0.0, 0.0);
        for (at, (format, bytes, tokens)) in library.into_iter().enumerate() {
            let seconds = tokens as f64 / (machine * random.log_normal(1.0, 0.3));
            if at >= done {
                unread.entry(format.to_owned()).or_default().add(bytes, 0);
                truth += tokens as f64;
                truth_seconds += seconds;
                continue;
            }
            known.entry(format.to_owned()).or_default().add(bytes, tokens);
            // The meters see minutes, not books.
            let mut left = seconds;
            while left > 0.0 {
                let part = left.min(60.0 - filled);
                minute += tokens as f64 * part / seconds;
                filled += part;
                left -= part;
                if filled >= 60.0 {
                    steps.push((minute, 60.0));
                    (minute, filled) = (0.0, 0.0);
                }
            }
        }
        if filled > 1.0 {
            steps.push((minute, filled));
        }
        let Some(rate) = rate(&steps[steps.len().saturating_sub(60)..]) else { continue };
        let (tokens, seconds) = estimate(tokens_left(0.0, &unread, &known), rate);
        tokens_held += usize::from((tokens.low..=tokens.high).contains(&truth));
        seconds_held += usize::from((seconds.low..=seconds.high).contains(&truth_seconds));
        width += (seconds.high - seconds.low) / truth_seconds;
    }
    let of = |count: usize| count as f64 / libraries as f64;
    (of(tokens_held), of(seconds_held), width / libraries as f64)
}

#[test]
fn the_interval_holds_the_truth_in_about_nine_of_ten_simulated_libraries() {
    for (books, done) in [(30, 3), (30, 15), (300, 5), (300, 30), (300, 150), (300, 290), (3000, 300), (3000, 2990)] {
        let (tokens, seconds, width) = coverage(0x5EED_0001 + books as u64 + done as u64, books, done, 400);
        println!(
            "{done:>4} of {books} books done: tokens inside {:.0} %, seconds inside {:.0} %, the interval is {:.0} % of the truth wide",
            tokens * 100.0,
            seconds * 100.0,
            width * 100.0
        );
        assert!(tokens > 0.82 && seconds > 0.82, "{done} of {books}: {tokens} {seconds}");
    }
}
