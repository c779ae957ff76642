//! Which of a book's files a job reads, and what is said and remembered of those that give no text. Pure.

use crate::domain::{Book, BookFile, FailedFile};
use crate::extract::{supported_formats, unreadable};
use crate::queue::ClaimedJob;

/// Why files of a format are left alone, where that format is not in the configured order; None for what is no book.
pub fn why_unread(format: &str) -> Option<String> {
    if supported_formats().iter().any(|readable| readable.eq_ignore_ascii_case(format)) {
        return Some("it could be read, but is not among library.formats".to_owned());
    }
    unreadable::reason(format).map(str::to_owned)
}

/// The files that a job tries, in this order: those not known to give no text. All of them where none is left: a job
/// is only there if somebody hopes for more.
pub fn to_try(job: &ClaimedJob) -> Vec<&BookFile> {
    let has_failed = |file: &&BookFile| job.failed.iter().any(|failed| failed.is(file));
    let left: Vec<&BookFile> = job.book.files().filter(|file| !has_failed(file)).collect();
    if left.is_empty() { job.book.files().collect() } else { left }
}

/// What is known after a job that tried some files: `failed` now, and `used` in the end. What was known of files that
/// are not on the shelf any more, or were replaced, is forgotten.
pub fn known_to_fail(job: &ClaimedJob, failed: &[FailedFile], used: Option<&BookFile>) -> Vec<FailedFile> {
    let known = |file: &BookFile| failed.iter().chain(&job.failed).find(|known| known.is(file)).cloned();
    job.book.files().filter(|file| Some(*file) != used).filter_map(known).collect()
}

/// The job as one of a book that has this file first: every stage after reading speaks of the file that was read.
pub fn reading(job: &ClaimedJob, file: &BookFile) -> ClaimedJob {
    ClaimedJob { book: Book { file: file.clone(), ..job.book.clone() }, ..job.clone() }
}

/// Why a book gives no text at all: the reason itself where it has one file, else one line for each of its formats.
pub fn reason_of_all(book: &Book, failed: &[FailedFile]) -> String {
    if let ([only], true) = (failed, book.unread.is_empty()) {
        return only.reason.clone();
    }
    let unread = book.unread.iter().map(|format| {
        let reason = why_unread(format).unwrap_or_else(|| "there is no reader for it".to_owned());
        format!("{format}: {reason}")
    });
    failed.iter().map(|file| format!("{}: {}", file.format, file.reason)).chain(unread).collect::<Vec<_>>().join("\n")
}

/// Said once, when a book is read in another format than the preferred one.
pub fn instead_of(failed: &[FailedFile], used: &BookFile) -> String {
    let reasons: Vec<&str> = failed.iter().map(|file| file.reason.as_str()).collect();
    let formats: Vec<&str> = failed.iter().map(|file| file.format.as_str()).collect();
    format!("{} gives no text, so {} is read instead: {}", formats.join(", "), used.format, reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Metadata, Source};
    use crate::queue::{JobId, JobKind};

    fn file(format: &str, content: i64) -> BookFile {
        BookFile {
            format: format.into(),
            path: format!("/library/book.{format}").into(),
            data_id: Some(content),
            size: 1,
            mtime_us: 1,
        }
    }

    fn job(files: &[BookFile], failed: Vec<FailedFile>) -> ClaimedJob {
        ClaimedJob {
            id: JobId(1),
            kind: JobKind::Ingest,
            book: Book {
                uuid: Uuid::from_u128(1),
                library_uuid: Uuid::from_u128(2),
                source: Source::Calibre(1),
                metadata: Metadata::default(),
                file: files[0].clone(),
                others: files[1..].to_vec(),
                unread: Vec::new(),
                added_us: 0,
            },
            attempts: 1,
            force: false,
            indexed: None,
            shadow: false,
            live: None,
            failed,
        }
    }

    fn formats(files: &[&BookFile]) -> Vec<String> {
        files.iter().map(|file| file.format.clone()).collect()
    }

    #[test]
    fn files_that_failed_are_tried_only_where_no_other_is_left() {
        let files = [file("AZW3", 1), file("EPUB", 2), file("TXT", 3)];
        let failed = |at: usize| FailedFile::new(&files[at], format!("bad {at}"));
        assert_eq!(formats(&to_try(&job(&files, vec![]))), ["AZW3", "EPUB", "TXT"]);
        assert_eq!(formats(&to_try(&job(&files, vec![failed(0)]))), ["EPUB", "TXT"]);
        assert_eq!(formats(&to_try(&job(&files, vec![failed(0), failed(1), failed(2)]))), ["AZW3", "EPUB", "TXT"]);
    }

    #[test]
    fn what_is_known_follows_the_shelf() {
        let files = [file("AZW3", 1), file("EPUB", 2)];
        let gone = FailedFile::new(&file("MOBI", 9), "gone");
        let replaced = FailedFile::new(&file("EPUB", 1), "an older one");
        let azw3 = FailedFile::new(&files[0], "damaged");
        let job = job(&files, vec![gone, replaced, azw3.clone()]);
        assert_eq!(known_to_fail(&job, &[], Some(&files[1])), std::slice::from_ref(&azw3));
        assert_eq!(known_to_fail(&job, &[], Some(&files[0])), [], "it was mended in place, or tried again");
        let epub = FailedFile::new(&files[1], "empty");
        assert_eq!(known_to_fail(&job, std::slice::from_ref(&epub), None), [azw3, epub]);
    }

    #[test]
    fn a_reason_names_each_format() {
        let files = [file("EPUB", 1), file("TXT", 2)];
        let failed: Vec<_> = files.iter().map(|file| FailedFile::new(file, "bad")).collect();
        let mut book = job(&files, vec![]).book;
        assert_eq!(reason_of_all(&book, &failed[..1]), "bad", "one file, one reason");
        book.unread = vec!["CBZ".into(), "FB2".into(), "XYZ".into()];
        assert_eq!(
            reason_of_all(&book, &failed),
            "EPUB: bad\nTXT: bad\nCBZ: a comic: its pages are images without text\n\
             FB2: it could be read, but is not among library.formats\nXYZ: there is no reader for it"
        );
    }

    proptest! {
        /// A job that has recorded what it learned leaves nothing to do: the file it used is the one to read, or none is.
        #[test]
        fn after_a_job_the_book_rests(
            contents in proptest::collection::vec(0..3_i64, 1..5),
            known in proptest::collection::vec((0..5_usize, 0..3_i64), 0..6),
            sound in proptest::collection::vec(any::<bool>(), 5),
        ) {
            let name = |at: usize| format!("F{at}");
            let files: Vec<_> = contents.iter().enumerate().map(|(at, content)| file(&name(at), *content)).collect();
            let known = known.into_iter().map(|(at, content)| FailedFile::new(&file(&name(at), content), "known"));
            let job = job(&files, known.collect());
            let mut failed = Vec::new();
            let mut used = None;
            for file in to_try(&job) {
                let at = files.iter().position(|other| other == file).unwrap();
                if sound[at] {
                    used = Some(file);
                    break;
                }
                failed.push(FailedFile::new(file, "bad"));
            }
            let known = known_to_fail(&job, &failed, used);
            prop_assert_eq!(job.book.file_to_read(&known), used);
            prop_assert!(known.iter().all(|failed| files.iter().any(|file| failed.is(file))));
            if used.is_none() {
                prop_assert_eq!(known.len(), files.len());
            }
        }
    }
}
