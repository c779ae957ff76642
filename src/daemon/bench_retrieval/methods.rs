//! The list of what is compared. A new way to cut is one line here.

use crate::chunk::{self, Borders, ChunkSettings, Likeness, Weights};

/// The method that parents and contexts are tried with, and whose mean size the others of "same size" have.
pub const REFERENCE: &str = "universal-semantic";

/// The contract's threshold.
const THRESHOLD: f32 = 0.55;

/// Where passages come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// As the service cuts.
    Service(ChunkSettings),
    /// Windows of one size, of which neighbours share so much.
    Windows { overlap: f64 },
    /// Paragraphs packed to a size.
    Paragraphs,
}

/// How large passages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// By the method's own settings.
    Own,
    /// The size that is aimed at, or else the largest (and with it the smallest), is set so that the mean is the
    /// reference's, in each language.
    LikeReference,
}

/// Whether chapters are results, too, and where their vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chapters {
    Absent,
    MeanOfPassages,
    OwnPass,
}

/// What stands before a passage's text when it is embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Bare,
    Title,
    /// The title and the headings above the passage, but for those of its own text: they are the questions.
    TitleAndPath,
}

/// What a method is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The best of this family.
    Borders,
    /// The same, but it is not of the reference's size, so it is not the best: larger passages are found more easily.
    OtherSize,
    /// The reference.
    Chapters,
    /// The reference.
    Context,
}

/// One way to make a collection's passages.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    pub name: String,
    pub cut: Cut,
    pub size: Size,
    pub chapters: Chapters,
    pub context: Context,
}

impl Method {
    fn new(name: &str, cut: Cut, size: Size) -> Self {
        Self { name: name.to_owned(), cut, size, chapters: Chapters::Absent, context: Context::Bare }
    }

    pub fn family(&self) -> Family {
        match (self.chapters, self.context) {
            (Chapters::Absent, Context::Bare) => Family::Borders,
            (Chapters::Absent, _) => Family::Context,
            _ => Family::Chapters,
        }
    }

    /// Changes one parameter; says what is wrong where it cannot.
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number: f64 = value.parse().map_err(|_| format!("'{value}' is no number"))?;
        let words = number.max(0.0) as usize;
        match (key, &mut self.cut) {
            ("overlap", Cut::Windows { overlap }) => *overlap = number.clamp(0.0, 0.9),
            ("min", Cut::Service(settings)) => settings.min_words = words,
            ("max", Cut::Service(settings)) => settings.max_words = words,
            ("target", Cut::Service(settings)) if matches!(settings.borders, Borders::Cheapest { .. }) => {
                settings.target_words = words;
            }
            (_, Cut::Service(ChunkSettings { borders: Borders::UniversalSemantic { threshold }, .. }))
                if key == "threshold" =>
            {
                *threshold = number as f32;
            }
            (_, Cut::Service(ChunkSettings { borders: Borders::Cheapest { weights, .. }, .. })) => match key {
                "reach" => weights.reach = words,
                "size" => weights.size = number,
                "section" => weights.section = number,
                "paragraph" => weights.paragraph = number,
                "sentence" => weights.sentence = number,
                "likeness" => weights.likeness = number,
                "quantile" => weights.quantile = number,
                _ => return Err(format!("'{key}' is none of its parameters")),
            },
            _ => return Err(format!("'{key}' is none of its parameters")),
        }
        Ok(())
    }
}

/// The settings with another size: the one that is aimed at, where there is one, else the largest, and the smallest with it.
pub fn of_size(from: &ChunkSettings, tokens: usize) -> ChunkSettings {
    let words = (tokens as f64 * 1000.0 / chunk::words_as_tokens(1000) as f64).round() as usize;
    let mut settings = from.clone();
    match settings.borders {
        Borders::Cheapest { .. } => settings.target_words = words,
        Borders::UniversalSemantic { .. } | Borders::Packed => {
            settings.max_words = words;
            settings.min_words = (settings.max_words * from.min_words) / from.max_words.max(1);
        }
    }
    settings
}

/// The methods that are asked for, `NAME` or `NAME:KEY=VALUE:...`, in that order; all where none is.
pub fn chosen(sizes: &ChunkSettings, asked: &[String]) -> Result<Vec<Method>, String> {
    let all = methods(sizes);
    if asked.is_empty() {
        return Ok(all);
    }
    let one = |text: &String| {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let Some(mut method) = all.iter().find(|method| method.name == name).cloned() else {
            let known: Vec<&str> = all.iter().map(|method| method.name.as_str()).collect();
            return Err(format!("there is no method '{name}'; there are {}", known.join(", ")));
        };
        for parameter in parts {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            method.set(key, value).map_err(|reason| format!("the method '{text}': {reason}"))?;
        }
        method.name.clone_from(text);
        Ok(method)
    };
    asked.iter().map(one).collect()
}

/// All methods, with the configured sizes.
pub fn methods(sizes: &ChunkSettings) -> Vec<Method> {
    let service = |borders| Cut::Service(ChunkSettings { borders, ..sizes.clone() });
    let cheapest = |likeness| service(Borders::Cheapest { likeness, weights: Weights::default() });
    let reference = || service(Borders::UniversalSemantic { threshold: THRESHOLD });
    let with = |name, chapters, context| Method { chapters, context, ..Method::new(name, reference(), Size::Own) };
    vec![
        Method::new(REFERENCE, reference(), Size::Own),
        Method::new("packed", service(Borders::Packed), Size::Own),
        Method::new("packed-same-size", service(Borders::Packed), Size::LikeReference),
        Method::new("windows", Cut::Windows { overlap: 0.0 }, Size::LikeReference),
        Method::new("windows-overlap", Cut::Windows { overlap: 0.2 }, Size::LikeReference),
        Method::new("paragraphs", Cut::Paragraphs, Size::LikeReference),
        Method::new("structure", cheapest(Likeness::None), Size::LikeReference),
        Method::new("lexical", cheapest(Likeness::Lexical), Size::LikeReference),
        Method::new("semantic", cheapest(Likeness::Model), Size::LikeReference),
        Method::new("structure-own-size", cheapest(Likeness::None), Size::Own),
        Method::new("lexical-own-size", cheapest(Likeness::Lexical), Size::Own),
        with("chapters-mean", Chapters::MeanOfPassages, Context::Bare),
        with("chapters-own-pass", Chapters::OwnPass, Context::Bare),
        with("with-title", Chapters::Absent, Context::Title),
        with("with-title-and-path", Chapters::Absent, Context::TitleAndPath),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> ChunkSettings {
        ChunkSettings {
            borders: Borders::Packed,
            min_words: 200,
            target_words: 260,
            max_words: 1200,
            min_chapter_words: 384,
        }
    }

    #[test]
    fn a_method_is_chosen_by_name_with_its_parameters() {
        let asked: Vec<String> = ["lexical:target=300:quantile=0.25", "windows:overlap=0.5"].map(String::from).into();
        let found = chosen(&sizes(), &asked).unwrap();
        assert_eq!(found.iter().map(|method| method.name.as_str()).collect::<Vec<_>>(), asked);
        let Cut::Service(ChunkSettings { borders: Borders::Cheapest { weights, .. }, target_words, .. }) = found[0].cut
        else {
            panic!("{found:?}");
        };
        assert_eq!((target_words, weights.quantile), (300, 0.25));
        assert_eq!(found[1].cut, Cut::Windows { overlap: 0.5 });
        assert_eq!(chosen(&sizes(), &[]).unwrap().len(), methods(&sizes()).len());
        for (asked, reason) in [
            ("holes", "there is no method 'holes'; there are universal-semantic, "),
            ("windows:target=3", "the method 'windows:target=3': 'target' is none of its parameters"),
            ("lexical:target", "'' is no number"),
        ] {
            let error = chosen(&sizes(), &[asked.to_owned()]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn another_size_is_aimed_at_or_scales_the_greatest_and_the_least() {
        let packed = of_size(&sizes(), 63);
        assert_eq!((packed.min_words, packed.max_words), (7, 47));
        let aimed = ChunkSettings {
            borders: Borders::Cheapest { likeness: Likeness::None, weights: Weights::default() },
            ..sizes()
        };
        assert_eq!(of_size(&aimed, 127).target_words, 95);
    }
}
