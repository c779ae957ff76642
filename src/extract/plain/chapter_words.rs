//! What chapters are called, and how they are counted, in the languages of many libraries. Pure. Must never take a
//! sentence for a heading: "Part of the house" has no number.

/// What a line says it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// Holds chapters.
    Part,
    Chapter,
}

/// Words that stand beside a chapter's number.
#[rustfmt::skip]
const CHAPTERS: &[&str] = &[
    "chapter", "article", "section", "canto", "letter", "lesson", "appendix", "kapitel", "artikel", "abschnitt",
    "anhang", "brief", "chapitre", "annexe", "leçon", "capítulo", "capitulo", "artículo", "artigo", "apéndice",
    "capitolo", "articolo", "appendice", "capítol", "capitolul", "articolul", "anexa", "poglavlje", "članak",
    "glava", "član", "poglavje", "člen", "prilog", "pismo", "глава", "поглавље", "члан", "чланак", "статья",
    "раздел", "приложение", "розділ", "стаття", "раздзел", "член", "rozdział", "artykuł", "kapitola", "článek",
    "článok", "dodatek", "hoofdstuk", "bijlage", "kapittel", "kafli", "luku", "peatükk", "fejezet", "cikk", "bölüm",
    "madde", "skyrius", "straipsnis", "nodaļa", "kapitull", "neni", "κεφάλαιο", "άρθρο", "פרק", "الفصل", "فصل",
    "المادة", "باب", "bab", "pasal", "chương", "điều", "บทที่", "ข้อ", "अध्याय", "ជំពូក",
];

/// Words that stand beside the number of a part or a volume.
#[rustfmt::skip]
const PARTS: &[&str] = &[
    "part", "book", "volume", "act", "teil", "buch", "band", "akt", "partie", "livre", "tome", "parte", "libro",
    "livro", "tomo", "acto", "atto", "dio", "deo", "knjiga", "svezak", "čin", "del", "bok", "bog", "deel", "boek",
    "część", "księga", "tom", "část", "časť", "kniha", "díl", "часть", "книга", "том", "део", "књига", "частина",
    "osa", "rész", "kötet", "kısım", "cilt", "μέρος", "βιβλίο", "חלק", "الجزء", "القسم", "بخش", "phần", "ภาค",
    "bagian",
];

/// Chapters without a number.
#[rustfmt::skip]
const UNNUMBERED: &[&str] = &[
    "prologue", "epilogue", "preface", "foreword", "introduction", "afterword", "conclusion", "preamble", "prolog",
    "epilog", "vorwort", "einleitung", "nachwort", "präambel", "schluss", "épilogue", "préface", "avant-propos",
    "préambule", "postface", "prólogo", "epílogo", "prefacio", "introducción", "preámbulo", "prefácio",
    "introdução", "prologo", "prefazione", "introduzione", "epilogo", "preambolo", "predgovor", "uvod", "pogovor",
    "preambula", "zaključak", "proslov", "предговор", "увод", "поговор", "предисловие", "введение", "эпилог",
    "пролог", "преамбула", "послесловие", "заключение", "вступ", "передмова", "епілог", "wstęp", "przedmowa",
    "zakończenie", "úvod", "předmluva", "doslov", "závěr", "inleiding", "voorwoord", "nawoord", "förord",
    "inledning", "forord", "innledning", "indledning", "johdanto", "esipuhe", "előszó", "bevezetés", "utószó",
    "önsöz", "giriş", "sonsöz", "πρόλογος", "επίλογος", "εισαγωγή", "مقدمة", "序", "序章", "序文", "前書き", "まえがき", "はじめに",
    "あとがき", "おわりに", "前言", "後記", "后记", "序言", "終章", "终章", "머리말", "서문", "맺음말",
];

/// What the line begins, if it names a division and its number, or one that has none.
pub fn division(line: &str) -> Option<Division> {
    let line = line.trim();
    if let Some(division) = east_asian(line) {
        return Some(division);
    }
    if line.starts_with(char::is_lowercase) {
        return None;
    }
    let lower = line.to_lowercase();
    let mut words = lower.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let (first, second) = (words.next()?, words.next());
    let count = 1 + usize::from(second.is_some()) + words.count();
    if count == 1 && UNNUMBERED.contains(&first) {
        return Some(Division::Chapter);
    }
    let second = second.filter(|word| !word.is_empty())?;
    let kind = |word: &str| {
        let plain = CHAPTERS.contains(&word).then_some(Division::Chapter);
        plain.or_else(|| PARTS.contains(&word).then_some(Division::Part))
    };
    // "Chapter One", "Erstes Kapitel": two words and nothing else, the line no sentence's end.
    let bare = count == 2 && !line.ends_with([',', ';', ':', '?', '!']) && starts_large(line);
    if let Some(division) = kind(first) {
        return (is_number(second) || bare && letters(second)).then_some(division);
    }
    let division = kind(second)?;
    (is_number(first) || bare && letters(first)).then_some(division)
}

/// The value of a Roman or Arabic number.
pub fn number(word: &str) -> Option<u32> {
    if word.len() <= 4 && !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.parse().ok();
    }
    let value = |c: u8| match c.to_ascii_lowercase() {
        b'i' => 1,
        b'v' => 5,
        b'x' => 10,
        b'l' => 50,
        b'c' => 100,
        b'd' => 500,
        b'm' => 1000,
        _ => 0,
    };
    if word.is_empty() || word.len() > 9 || word.bytes().any(|c| value(c) == 0) {
        return None;
    }
    let bytes = word.as_bytes();
    let mut sum = 0i32;
    for (at, c) in bytes.iter().enumerate() {
        let next = bytes.get(at + 1).map_or(0, |c| value(*c));
        sum += if value(*c) < next { -value(*c) } else { value(*c) };
    }
    u32::try_from(sum).ok()
}

fn is_number(word: &str) -> bool {
    number(word).is_some() || (word.chars().count() <= 4 && word.chars().all(char::is_numeric))
}

fn letters(word: &str) -> bool {
    word.chars().count() >= 3 && word.chars().all(char::is_alphabetic)
}

fn starts_large(line: &str) -> bool {
    line.chars().find(|c| c.is_alphabetic()).is_some_and(|c| !c.is_lowercase())
}

/// 第一章, 第12話, 제3장
fn east_asian(line: &str) -> Option<Division> {
    let (rest, korean) = match line.strip_prefix('第') {
        Some(rest) => (rest, false),
        None => (line.strip_prefix('제')?, true),
    };
    let rest = rest.trim_start();
    let digits = |c: char| c.is_numeric() || "一二三四五六七八九十百千〇零两".contains(c);
    let name = rest.trim_start_matches(digits);
    if name.len() == rest.len() || rest.len() - name.len() > 24 {
        return None;
    }
    let name = name.trim_start().chars().next()?;
    match (korean, name) {
        (false, '章' | '回' | '節' | '节' | '話' | '话' | '条' | '條' | '幕') | (true, '장' | '절' | '화' | '조') => {
            Some(Division::Chapter)
        }
        (false, '巻' | '卷' | '部' | '篇' | '編' | '编') | (true, '부' | '편' | '권') => Some(Division::Part),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chapters_are_known_in_many_languages() {
        for line in [
            "CHAPTER I.",
            "Chapter 12: The End",
            "Chapter One",
            "1. Kapitel",
            "Erstes Kapitel",
            "POGLAVLJE III",
            "III. poglavlje",
            "Prvo poglavlje",
            "Članak 1.",
            "Глава первая",
            "Глава 2. Мир",
            "Chapitre premier",
            "2. fejezet",
            "1. Bölüm",
            "第一章 はじまり",
            "第12話",
            "제3장 시작",
            "ΚΕΦΆΛΑΙΟ 1",
            "الفصل 3",
            "Prologue",
            "UVOD",
        ] {
            assert_eq!(division(line), Some(Division::Chapter), "{line}");
        }
        for line in ["PART ONE", "Book II", "Zweiter Teil", "DIO 1", "Часть 1", "第二部"] {
            assert_eq!(division(line), Some(Division::Part), "{line}");
        }
        for line in [
            "Part of the house was dark",
            "chapter and verse",
            "Introduction to the matter",
            "The last chapter of it",
            "del mar",
            "Book me a room",
            "第三者",
            "a",
            "",
            "...",
            "letter by letter, he read",
            "section 3 tells more",
        ] {
            assert_eq!(division(line), None, "{line}");
        }
    }

    #[test]
    fn numbers_are_read() {
        let numbers = ["1", "12", "iv", "XIV", "MCMXC", "xyz", "", "12345"].map(number);
        assert_eq!(numbers, [Some(1), Some(12), Some(4), Some(14), Some(1990), None, None, None]);
    }
}
