//! What the points that the store holds of a book come to: a whole book, a part of one, leftovers. Pure.

use std::collections::BTreeMap;

use crate::domain::StoredPoint;

/// The counts of a book that is in the store whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeBook {
    pub sections: usize,
    pub chunks: usize,
    pub points: usize,
    pub tokens: usize,
}

/// Whether one generation of a book is there from its first chapter to its last child: None where a point is missing,
/// or where that cannot be told (points of an older version, which do not say how many chapters there are).
pub fn whole_book<'a>(points: impl Iterator<Item = &'a StoredPoint>, with_parents: bool) -> Option<WholeBook> {
    #[derive(Default)]
    struct Chapter {
        parents: usize,
        children: usize,
        expected: usize,
    }
    let mut chapters: BTreeMap<usize, Chapter> = BTreeMap::new();
    let mut whole = WholeBook { sections: 0, chunks: 0, points: 0, tokens: 0 };
    for point in points {
        let chapter = chapters.entry(point.section).or_default();
        if (chapter.parents + chapter.children > 0 && chapter.expected != point.children)
            || (whole.points > 0 && whole.sections != point.section_count)
        {
            return None;
        }
        chapter.expected = point.children;
        whole.sections = point.section_count;
        whole.points += 1;
        if point.is_child {
            chapter.children += 1;
            whole.chunks += 1;
            whole.tokens += point.tokens;
        } else {
            chapter.parents += 1;
        }
    }
    let all_there = whole.sections > 0
        && chapters.len() == whole.sections
        && chapters.keys().copied().eq(0..whole.sections)
        && chapters
            .values()
            .all(|chapter| chapter.children == chapter.expected && chapter.parents == usize::from(with_parents));
    all_there.then_some(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn book(children: &[usize], with_parents: bool) -> Vec<StoredPoint> {
        let mut points = Vec::new();
        for (section, count) in children.iter().enumerate() {
            let point = |is_child| StoredPoint {
                id: Uuid::nil(),
                is_child,
                section,
                section_count: children.len(),
                children: *count,
                tokens: 3,
                ..StoredPoint::default()
            };
            points.extend(with_parents.then(|| point(false)));
            points.extend((0..*count).map(|_| point(true)));
        }
        points
    }

    proptest! {
        #[test]
        fn a_book_is_whole_until_any_point_of_it_is_gone(
            children in proptest::collection::vec(1..5_usize, 1..5),
            with_parents in any::<bool>(),
            lost in any::<proptest::sample::Index>(),
        ) {
            let mut points = book(&children, with_parents);
            let chunks: usize = children.iter().sum();
            let expected = WholeBook { sections: children.len(), chunks, points: points.len(), tokens: chunks * 3 };
            prop_assert_eq!(whole_book(points.iter(), with_parents), Some(expected));
            prop_assert_eq!(whole_book(points.iter(), !with_parents), None);
            points.remove(lost.index(points.len()));
            prop_assert_eq!(whole_book(points.iter(), with_parents), None);
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_whole() {
        let mut old = book(&[2, 3], true);
        old.iter_mut().for_each(|point| point.section_count = 0);
        assert_eq!(whole_book(old.iter(), true), None);
        assert_eq!(whole_book([].iter(), true), None);
    }
}
