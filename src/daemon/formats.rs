//! The configured order of formats, checked against what there are readers for. The configuration knows no readers.

use crate::config::{Config, ConfigError};
use crate::extract::{supported_formats, unreadable};

/// The order of preference, upper case as Calibre writes formats.
///
/// # Errors
/// Where a format cannot be read, or is named twice.
pub fn in_order(config: &Config) -> Result<Vec<String>, ConfigError> {
    let bad = |reason: String| ConfigError::BadValue { key: "library.formats", reason };
    let mut order: Vec<String> = Vec::new();
    for format in &config.library.formats {
        let format = format.to_uppercase();
        if !supported_formats().contains(&format.as_str()) {
            let why = unreadable::reason(&format).map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(bad(format!(
                "'{format}' cannot be read{why}; readable are {}",
                supported_formats().join(", ")
            )));
        }
        if order.contains(&format) {
            return Err(bad(format!("'{format}' is named twice")));
        }
        order.push(format);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(formats: &[&str]) -> Result<Vec<String>, String> {
        let mut config = Config::default();
        config.library.formats = formats.iter().map(|format| format.to_string()).collect();
        in_order(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_order_is_taken_in_any_case_and_refused_where_it_cannot_be_meant() {
        assert_eq!(order(&["txt", "Epub"]).unwrap(), ["TXT", "EPUB"]);
        for (formats, word) in [(["EPUB", "cbz"], "a comic"), (["EPUB", ""], "''"), (["EPUB", "epub"], "twice")] {
            let refused = order(&formats).unwrap_err();
            assert!(refused.contains("library.formats") && refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn by_default_everything_readable_is_read_and_fixed_pages_come_after_marked_up_text() {
        let order = in_order(&Config::default()).unwrap();
        let (mut ordered, mut readable) = (order.clone(), supported_formats().to_vec());
        ordered.sort();
        readable.sort_unstable();
        assert_eq!(ordered, readable);
        if let Some(pdf) = order.iter().position(|format| format == "PDF") {
            let marked_up = ["EPUB", "AZW3", "MOBI", "DOCX", "ODT", "FB2", "HTMLZ", "HTML", "RTF"];
            assert!(order[pdf..].iter().all(|format| !marked_up.contains(&format.as_str())), "{order:?}");
        }
    }
}
