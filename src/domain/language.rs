//! Language codes: from what catalogues and files write to the contract's form.

/// The contract's `language`: ISO 639-1 where one exists (`eng` -> `en`), else the code as it is, else `unknown`.
///
/// Takes ISO 639-3 (Calibre), ISO 639-1, and BCP 47 tags (`en-GB`, EPUB's `dc:language`).
pub fn iso_639_1(code: Option<&str>) -> String {
    let code = code.map(str::trim).unwrap_or_default();
    let primary = code.split(['-', '_']).next().unwrap_or_default().to_lowercase();
    if primary.is_empty() || matches!(primary.as_str(), "und" | "mul" | "zxx" | "mis") {
        return "unknown".to_owned();
    }
    // Codes that isolang does not know by these spellings: the ISO 639-2/B (bibliographic) forms some files carry.
    let primary = match primary.as_str() {
        "ger" => "deu",
        "fre" => "fra",
        "dut" => "nld",
        "gre" => "ell",
        "cze" => "ces",
        "chi" => "zho",
        "rum" => "ron",
        "slo" => "slk",
        "scr" => "hrv",
        "scc" => "srp",
        other => other,
    };
    let language = isolang::Language::from_639_3(primary).or_else(|| isolang::Language::from_639_1(primary));
    match language.and_then(|language| language.to_639_1()) {
        Some(two_letters) => two_letters.to_owned(),
        None => primary.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::iso_639_1;

    #[test]
    fn codes_follow_the_contract() {
        for (given, expected) in [
            ("eng", "en"),
            ("hrv", "hr"),
            ("srp", "sr"),
            ("deu", "de"),
            ("ger", "de"),
            ("en-GB", "en"),
            ("pt_BR", "pt"),
            ("EN", "en"),
            ("cnr", "cnr"),
            ("grc", "grc"),
            ("und", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(iso_639_1(Some(given)), expected, "{given}");
        }
        assert_eq!(iso_639_1(None), "unknown");
    }
}
