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

/// How many texts to take from the front of each line for one batch of at most `budget` tokens, so that each line gets
/// about as many tokens as the others: always the line that has the fewest so far, the first of several, and what it
/// leaves goes to the others. A text over the budget goes alone. At least one text is taken where there is one.
pub fn share_token_budget(lines: &[&[usize]], budget: usize) -> Vec<usize> {
    let mut taken = vec![0; lines.len()];
    let mut given = vec![0; lines.len()];
    let mut total = 0;
    // Lines whose next text may still fit.
    let mut open: Vec<usize> = (0..lines.len()).filter(|&line| !lines[line].is_empty()).collect();
    while let Some(&line) = open.iter().min_by_key(|&&line| given[line]) {
        let length = lines[line][taken[line]];
        if total > 0 && total + length > budget {
            open.retain(|&other| other != line);
            continue;
        }
        total += length;
        given[line] += length;
        taken[line] += 1;
        if taken[line] == lines[line].len() {
            open.retain(|&other| other != line);
        }
    }
    taken
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

    #[test]
    fn a_large_request_leaves_room_for_small_ones() {
        let large = [100; 50];
        assert_eq!(share_token_budget(&[&large, &[10], &[30, 30]], 1000), [9, 1, 2]);
        // The first in line goes first where all are alike.
        assert_eq!(share_token_budget(&[&[60], &[60], &[60]], 120), [1, 1, 0]);
        assert_eq!(share_token_budget(&[&[5000], &[10]], 1000), [1, 0], "over the budget: alone");
    }

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
        fn a_shared_batch_is_within_its_budget_and_nobody_gets_more_than_who_could_have_more(
            lines in prop::collection::vec(prop::collection::vec(1usize..700, 0..20), 0..6), budget in 1usize..2000,
        ) {
            let borrowed: Vec<&[usize]> = lines.iter().map(Vec::as_slice).collect();
            let taken = share_token_budget(&borrowed, budget);
            let given: Vec<usize> =
                lines.iter().zip(&taken).map(|(line, &taken)| line[..taken].iter().sum()).collect();
            let total: usize = given.iter().sum();
            prop_assert!(total <= budget || taken.iter().sum::<usize>() == 1);
            prop_assert_eq!(total == 0, lines.iter().all(Vec::is_empty));
            for (line, &taken) in lines.iter().zip(&taken) {
                if taken < line.len() {
                    prop_assert!(total + line[taken] > budget, "there was room for it");
                }
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
