//! What a comparison of library, state and store found. Plain values; the rule that decides is pure and stands here, for
//! both the state's and the store's side of it are plain values, too.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a book's points and what the state says of it disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// The state says that more points are in the store than are.
    Missing,
    /// Points of older content, or of other settings, stand beside the current ones.
    Stale,
    /// Points of a book that the state does not have in the store.
    Orphan,
    /// The points say that they were made from another content than the state says.
    Content,
    /// A book of the library that is neither in the store nor in the queue, nor parked or taken out by hand.
    Forgotten,
}

impl FindingKind {
    pub const ALL: [FindingKind; 5] =
        [FindingKind::Missing, FindingKind::Stale, FindingKind::Orphan, FindingKind::Content, FindingKind::Forgotten];

    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Missing => "missing",
            FindingKind::Stale => "stale",
            FindingKind::Orphan => "orphan",
            FindingKind::Content => "content",
            FindingKind::Forgotten => "forgotten",
        }
    }
}

/// One book that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    pub kind: FindingKind,
    #[schema(value_type = String, format = "uuid")]
    pub library_uuid: Uuid,
    #[schema(value_type = String, format = "uuid")]
    pub book_uuid: Uuid,
    /// As people name it: `calibre 12`; empty where the state does not know the book.
    pub book_id: String,
    pub title: String,
    /// For a person.
    pub detail: String,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct AuditReport {
    /// Microseconds since the epoch.
    pub started_us: i64,
    pub seconds: f64,
    /// What a full look at the library came to, for a person; it is compared with the state by the look itself.
    pub library: String,
    /// Whether that look was complete.
    pub library_answers: bool,
    /// Books that were compared, points that were counted.
    pub books: u64,
    pub points: u64,
    /// Books left out because they are queued or in work.
    pub in_work: u64,
    /// Points that no book of a known library owns: another library's, or another program's. Never touched.
    pub foreign_points: u64,
    /// How many of each kind, and the first of them.
    #[schema(value_type = Vec<Vec<serde_json::Value>>)]
    pub counts: Vec<(FindingKind, u64)>,
    pub findings: Vec<Finding>,
    /// What was done about it; None where nothing was to be done but to look.
    pub repair: Option<AuditRepair>,
}

impl AuditReport {
    /// Whether nothing was found.
    pub fn agrees(&self) -> bool {
        self.counts.iter().all(|(_, count)| *count == 0)
    }

    /// `12 missing, 1 orphan`.
    pub fn summary(&self) -> String {
        let found = self.counts.iter().filter(|(_, count)| *count > 0);
        found.map(|(kind, count)| format!("{count} {}", kind.as_str())).collect::<Vec<_>>().join(", ")
    }
}

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditRepair {
    /// Books that are queued.
    pub queued: u64,
    /// Points of books that are in no library any more, deleted.
    pub deleted_points: u64,
}

/// A book as the state has it, as far as a comparison needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedBook {
    pub library_uuid: Uuid,
    pub book_uuid: Uuid,
    pub book_id: String,
    pub title: String,
    pub missing: bool,
    pub excluded: bool,
    /// A job is queued or running: what is compared would be in motion.
    pub in_work: bool,
    pub parked: bool,
    /// Generation, content hash and number of points that the store holds, as far as the state knows.
    pub indexed: Option<(String, String, u64)>,
}

/// A book's points in the store that are of one generation and say the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<T> {
    pub generation: T,
    pub content_hash: T,
    pub points: u64,
}

/// What is wrong with a book; None where state and store agree, or it is in work. `same` compares what stands for a text
/// in `held` with the text.
pub fn judge<T>(
    book: &AuditedBook,
    held: &[Held<T>],
    same: impl Fn(&T, &str) -> bool,
) -> Option<(FindingKind, String)> {
    let all: u64 = held.iter().map(|held| held.points).sum();
    if book.in_work {
        return None;
    }
    let Some((generation, content_hash, points)) = &book.indexed else {
        if all > 0 {
            return Some((FindingKind::Orphan, format!("{all} points, of which the state knows nothing")));
        }
        let forgotten = !book.excluded && !book.missing && !book.parked;
        return forgotten.then(|| (FindingKind::Forgotten, "neither in the store nor in the queue".to_owned()));
    };
    let current = || held.iter().filter(|held| same(&held.generation, generation));
    let found: u64 = current().map(|held| held.points).sum();
    if found != *points {
        return Some((FindingKind::Missing, format!("the store holds {found} of {points} points")));
    }
    if found != all {
        return Some((FindingKind::Stale, format!("{} points of older content beside {points}", all - found)));
    }
    let other: u64 = current().filter(|held| !same(&held.content_hash, content_hash)).map(|held| held.points).sum();
    (other > 0).then(|| (FindingKind::Content, format!("{other} of {points} points name another file's content")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> AuditedBook {
        AuditedBook {
            library_uuid: Uuid::nil(),
            book_uuid: Uuid::nil(),
            book_id: "calibre 1".into(),
            title: "One".into(),
            missing: false,
            excluded: false,
            in_work: false,
            parked: false,
            indexed: Some(("g".into(), "c".into(), 3)),
        }
    }

    fn held(parts: &[(&str, &str, u64)]) -> Vec<Held<String>> {
        parts
            .iter()
            .map(|(generation, content_hash, points)| Held {
                generation: (*generation).to_owned(),
                content_hash: (*content_hash).to_owned(),
                points: *points,
            })
            .collect()
    }

    #[test]
    fn each_disagreement_has_its_name() {
        let unknown = AuditedBook { indexed: None, ..book() };
        let cases = [
            (book(), held(&[("g", "c", 3)]), None),
            (book(), held(&[("g", "c", 2)]), Some(FindingKind::Missing)),
            (book(), held(&[]), Some(FindingKind::Missing)),
            (book(), held(&[("g", "c", 2), ("old", "x", 1)]), Some(FindingKind::Missing)),
            (book(), held(&[("g", "c", 3), ("old", "x", 5)]), Some(FindingKind::Stale)),
            (book(), held(&[("g", "c", 2), ("g", "x", 1)]), Some(FindingKind::Content)),
            (unknown.clone(), held(&[("g", "c", 3)]), Some(FindingKind::Orphan)),
            (unknown.clone(), held(&[]), Some(FindingKind::Forgotten)),
            (AuditedBook { parked: true, ..unknown.clone() }, held(&[]), None),
            (AuditedBook { excluded: true, ..unknown.clone() }, held(&[]), None),
            (AuditedBook { missing: true, ..unknown.clone() }, held(&[]), None),
            (AuditedBook { in_work: true, ..unknown }, held(&[("g", "c", 3)]), None),
            (AuditedBook { in_work: true, ..book() }, held(&[]), None),
        ];
        for (book, held, expected) in cases {
            let found = judge(&book, &held, |held, text| held == text).map(|(kind, _)| kind);
            assert_eq!(found, expected, "{book:?} {held:?}");
        }
    }

    #[test]
    fn a_summary_names_what_was_found() {
        let counts = vec![(FindingKind::Missing, 12), (FindingKind::Stale, 0), (FindingKind::Orphan, 1)];
        let report = AuditReport { counts, ..AuditReport::default() };
        assert_eq!((report.agrees(), report.summary().as_str()), (false, "12 missing, 1 orphan"));
        assert!(AuditReport::default().agrees());
    }
}
