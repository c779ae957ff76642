//! Which texts go through the model together. Pure.

/// The order in which a request's texts go through the model: longest first, so that a batch holds texts of like
/// lengths. Stable, so equal lengths keep the texts' order and a run can be repeated exactly.
pub fn longest_first(lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    order
}

/// How many texts to take from the front of each line for one batch of at most `budget` tokens: the first line's as far
/// as they fit, then the next one's. A text over the budget goes alone. At least one text is taken where there is one.
pub fn take_by_token_budget(lines: &[&[usize]], budget: usize) -> Vec<usize> {
    let mut tokens = 0;
    let mut any = false;
    let take = |line: &&[usize]| {
        let mut taken = 0;
        for &length in *line {
            if any && tokens + length > budget {
                break;
            }
            any = true;
            tokens += length;
            taken += 1;
        }
        taken
    };
    lines.iter().map(take).collect()
}

/// Splits a batch into at most `parts` groups of about equal tokens (longest first, each to the lightest group).
pub fn balanced_groups(lengths: &[usize], parts: usize) -> Vec<Vec<usize>> {
    let mut groups = vec![(0, Vec::new()); parts.clamp(1, lengths.len().max(1))];
    for index in longest_first(lengths) {
        if let Some((tokens, group)) = groups.iter_mut().min_by_key(|(tokens, _)| *tokens) {
            *tokens += lengths[index];
            group.push(index);
        }
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| !group.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_is_within_its_budget_or_one_text(
            lines in prop::collection::vec(prop::collection::vec(1usize..700, 0..20), 0..5), budget in 1usize..2000,
        ) {
            let borrowed: Vec<&[usize]> = lines.iter().map(Vec::as_slice).collect();
            let taken = take_by_token_budget(&borrowed, budget);
            prop_assert_eq!(taken.len(), lines.len());
            let batch: Vec<usize> =
                lines.iter().zip(&taken).flat_map(|(line, &taken)| line[..taken].iter().copied()).collect();
            prop_assert!(batch.iter().sum::<usize>() <= budget || batch.len() == 1);
            prop_assert_eq!(batch.is_empty(), lines.iter().all(Vec::is_empty));
            // Nothing more of the first line would have fitted.
            if let (Some(line), Some(&taken)) = (lines.first(), taken.first()) && taken < line.len() {
                prop_assert!(line[..=taken].iter().sum::<usize>() > budget);
            }
        }

        #[test]
        fn every_text_is_in_exactly_one_group(
            lengths in prop::collection::vec(1usize..700, 0..60), parts in 1usize..5,
        ) {
            let mut seen: Vec<usize> = balanced_groups(&lengths, parts).into_iter().flatten().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
