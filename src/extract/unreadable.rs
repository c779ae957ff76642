//! Formats of books that have no text, or none that is read here, and what a person can do. One table; pure.
//!
//! Must never name a format that a reader exists for.

const COMIC: &str = "a comic: its pages are images without text";
const DJVU: &str = "scanned pages in DjVu, which is not read; add a PDF or EPUB with a text layer";
const CONVERT: &str = "an old e-book format that is not read; convert it to EPUB in Calibre";
const KINDLE: &str = "a Kindle format that is not read; add an AZW3 or EPUB without DRM";

/// Calibre's names, upper case.
const UNREADABLE: &[(&str, &str)] = &[
    ("CBZ", COMIC),
    ("CBR", COMIC),
    ("CB7", COMIC),
    ("CBC", COMIC),
    ("DJVU", DJVU),
    ("DJV", DJVU),
    ("LIT", CONVERT),
    ("LRF", CONVERT),
    ("LRX", "an encrypted Sony e-book; only a copy without DRM can be read"),
    ("PDB", CONVERT),
    ("PML", CONVERT),
    ("RB", CONVERT),
    ("SNB", CONVERT),
    ("TCR", CONVERT),
    ("CHM", "Windows help, which is not read; convert it to EPUB in Calibre"),
    ("DOC", "Word's format of before 2007, which is not read; save it as DOCX, or convert it to EPUB in Calibre"),
    ("TPZ", KINDLE),
    ("AZW1", KINDLE),
    ("AZW4", "a PDF in a Kindle wrapper, which is not read; add the PDF itself"),
    ("KFX", KINDLE),
    ("KPF", "Kindle Create's working file, which is not read; add the EPUB or DOCX it was made from"),
    ("KFX-ZIP", KINDLE),
    ("ACSM", "a voucher for a book in Adobe's shop, not the book itself"),
];

/// Why a format gives no text, in any case (`CBZ`); None for readable formats and for what is no book.
pub fn reason(format: &str) -> Option<&'static str> {
    let format = format.to_uppercase();
    // What a conversion started from: Calibre keeps it beside the result, which is the one to read.
    if format.starts_with("ORIGINAL_") {
        return Some("Calibre's copy from before a conversion, which is not read");
    }
    UNREADABLE.iter().find(|(name, _)| *name == format).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_format_is_both_readable_and_unreadable() {
        for format in crate::extract::supported_formats() {
            assert_eq!(reason(format), None, "{format}");
        }
        for (at, (name, _)) in UNREADABLE.iter().enumerate() {
            assert_eq!(*name, name.to_uppercase());
            assert!(UNREADABLE[..at].iter().all(|(other, _)| other != name), "{name} twice");
        }
    }

    #[test]
    fn reasons_are_found_in_any_case() {
        assert_eq!(reason("cbz"), Some(COMIC));
        assert!(reason("Original_EPUB").is_some());
        assert_eq!(reason("JPG"), None);
    }
}
