//! The list of what is compared. A new way to cut is one line here.

use crate::chunk::{self, Borders, ChunkSettings, Likeness, Weights};

/// The contract's rule.
pub const CONTRACT: &str = "universal-semantic";
/// The service's default: chapters and contexts are tried with it.
pub const DEFAULT: &str = "structure";

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

/// How large passages are. Among fewer, larger ones everything is found more easily, so only like sizes compete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// By the method's own settings.
    Own,
    /// Fitted, so that the mean is that of the method with this name, in each language.
    Like(&'static str),
}

impl Size {
    pub fn is_like(self, name: &str) -> bool {
        matches!(self, Self::Like(like) if like == name)
    }
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
pub enum Base {
    /// The best of those that have this method's size.
    BestOf(&'static str),
    /// One method.
    Method(&'static str),
}

/// One way to make a collection's passages.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    pub name: String,
    pub cut: Cut,
    pub size: Size,
    pub chapters: Chapters,
    pub context: Context,
    pub base: Base,
}

impl Method {
    fn own_size(name: &'static str, cut: Cut) -> Self {
        let base = if [CONTRACT, DEFAULT].contains(&name) { Base::BestOf(name) } else { Base::Method(DEFAULT) };
        let (chapters, context) = (Chapters::Absent, Context::Bare);
        Self { name: name.to_owned(), cut, size: Size::Own, chapters, context, base }
    }

    fn like(size: &'static str, name: &'static str, cut: Cut) -> Self {
        Self { size: Size::Like(size), base: Base::BestOf(size), ..Self::own_size(name, cut) }
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

/// The settings with another size: the one that is aimed at; or the least, from which on the contract's rule may cut; or
/// the greatest, and the least with it. `limit` is what the model takes.
pub fn of_size(from: &ChunkSettings, tokens: usize, limit: usize) -> ChunkSettings {
    let words = |tokens: f64| (tokens * 1000.0 / chunk::words_as_tokens(1000) as f64).round() as usize;
    let mut settings = from.clone();
    match &mut settings.borders {
        Borders::Cheapest { weights, .. } => {
            settings.target_words = words(tokens as f64);
            weights.fullness = 1.0;
        }
        Borders::UniversalSemantic { .. } => {
            // The least shrinks with the greatest where the model takes less than that.
            let greatest = chunk::words_as_tokens(from.max_words);
            settings.min_words = words(tokens as f64 * greatest as f64 / greatest.min(limit).max(1) as f64);
        }
        Borders::Packed => {
            settings.max_words = words(tokens as f64);
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
        let with_parameters = name.len() < text.len();
        let Some(mut method) = all.iter().find(|method| method.name == name).cloned() else {
            let known: Vec<&str> = all.iter().map(|method| method.name.as_str()).collect();
            return Err(format!("there is no method '{name}'; there are {}", known.join(", ")));
        };
        for parameter in parts {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            method.set(key, value).map_err(|reason| format!("the method '{text}': {reason}"))?;
        }
        method.name.clone_from(text);
        if with_parameters && method.size == Size::Own {
            method.base = Base::Method(DEFAULT);
        }
        Ok(method)
    };
    asked.iter().map(one).collect()
}

/// All methods, with the configured sizes.
pub fn methods(sizes: &ChunkSettings) -> Vec<Method> {
    let service = |borders| Cut::Service(ChunkSettings { borders, ..sizes.clone() });
    let cheapest = |likeness| service(Borders::Cheapest { likeness, weights: Weights::default() });
    let semantic = || service(Borders::UniversalSemantic { threshold: THRESHOLD });
    let packed = || service(Borders::Packed);
    let structure = || cheapest(Likeness::None);
    let with = |name, chapters, context| Method {
        chapters,
        context,
        base: Base::Method(DEFAULT),
        ..Method::own_size(name, structure())
    };
    vec![
        Method::own_size(DEFAULT, structure()),
        Method::like(DEFAULT, "lexical", cheapest(Likeness::Lexical)),
        Method::like(DEFAULT, "semantic", cheapest(Likeness::Model)),
        Method::like(DEFAULT, "universal-semantic-larger", semantic()),
        Method::like(DEFAULT, "paragraphs", Cut::Paragraphs),
        Method::like(DEFAULT, "packed-same-size", packed()),
        Method::like(DEFAULT, "windows", Cut::Windows { overlap: 0.0 }),
        Method::like(DEFAULT, "windows-overlap", Cut::Windows { overlap: 0.2 }),
        Method::own_size(CONTRACT, semantic()),
        Method::like(CONTRACT, "structure-smaller", structure()),
        Method::like(CONTRACT, "lexical-smaller", cheapest(Likeness::Lexical)),
        Method::like(CONTRACT, "paragraphs-smaller", Cut::Paragraphs),
        Method::like(CONTRACT, "windows-smaller", Cut::Windows { overlap: 0.0 }),
        Method::own_size("packed", packed()),
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
            ("holes", "there is no method 'holes'; there are structure, lexical, "),
            ("windows:target=3", "the method 'windows:target=3': 'target' is none of its parameters"),
            ("lexical:target", "'' is no number"),
        ] {
            let error = chosen(&sizes(), &[asked.to_owned()]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_has_a_size_of_its_own_does_not_compete() {
        let base = |asked: &str| chosen(&sizes(), &[asked.to_owned()]).unwrap()[0].base;
        assert_eq!(base("structure"), Base::BestOf(DEFAULT));
        assert_eq!(base("windows"), Base::BestOf(DEFAULT));
        assert_eq!(base("lexical:quantile=0.3"), Base::BestOf(DEFAULT), "its size is fitted all the same");
        assert_eq!(base("structure:target=100"), Base::Method(DEFAULT));
        assert_eq!(base("packed"), Base::Method(DEFAULT));
        assert_eq!(base("chapters-mean"), Base::Method(DEFAULT));
    }

    #[test]
    fn another_size_is_aimed_at_or_scales_the_greatest_and_the_least() {
        let packed = of_size(&sizes(), 63, 254);
        assert_eq!((packed.min_words, packed.max_words), (7, 47));
        let with = |borders| of_size(&ChunkSettings { borders, ..sizes() }, 127, 254);
        let aimed = with(Borders::Cheapest { likeness: Likeness::None, weights: Weights::default() });
        assert_eq!((aimed.target_words, aimed.min_words, aimed.max_words), (95, 200, 1200));
        // 127 tokens are half of what the model takes, 600 words half of the greatest.
        let semantic = with(Borders::UniversalSemantic { threshold: 0.55 });
        assert_eq!((semantic.min_words, semantic.max_words), (600, 1200));
    }
}
