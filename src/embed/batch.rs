//! Which texts go through the model together. Pure.

/// Splits texts into batches of at most `budget` tokens, longest texts first, so that a batch holds texts of like
/// lengths. A text over the budget stands alone. Returns the texts' indices; every index occurs exactly once.
pub fn by_token_budget(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // Stable, so equal lengths keep the texts' order and a run can be repeated exactly.
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if tokens + lengths[index] <= budget => {
                batch.push(index);
                tokens += lengths[index];
            }
            _ => {
                batches.push(vec![index]);
                tokens = lengths[index];
            }
        }
    }
    batches
}

/// Splits a batch into at most `parts` groups of about equal tokens (longest first, each to the lightest group).
pub fn balanced_groups(lengths: &[usize], parts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut groups = vec![(0, Vec::new()); parts.clamp(1, lengths.len().max(1))];
    for index in order {
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
        fn every_text_is_in_exactly_one_batch_within_the_budget(
            lengths in prop::collection::vec(1usize..700, 0..60), budget in 1usize..2000, parts in 1usize..5,
        ) {
            let batches = by_token_budget(&lengths, budget);
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
                prop_assert!(tokens <= budget || batch.len() == 1);
            }
            for split in [batches, balanced_groups(&lengths, parts)] {
                let mut seen: Vec<usize> = split.into_iter().flatten().collect();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            }
        }
    }
}
